// SPDX-License-Identifier: MIT
// Element passes, with vectors. Included once per target.
#if defined(SYNCBN_KERNELS_ELEMENTS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_ELEMENTS_INL
#undef SYNCBN_KERNELS_ELEMENTS_INL
#else
#define SYNCBN_KERNELS_ELEMENTS_INL
#endif

#include <algorithm>

#include "hwy/cache_control.h"
#include "kernels/sums-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

/// A pass is a struct with: Coefficients for one vector of channels, made by broadcast(c) or get(c, access), and
/// apply(offset, coefficients, access), which makes the outputs of one vector of elements.
template <class T>
struct NormalizePass {
  const T* x;
  T* y;
  ForwardCoefficients k;

  HWY_INLINE const T* output() const { return y; }
  struct Coefficients {
    Vector mean_hi, mean_lo, scale, shift;
  };
  HWY_INLINE Coefficients broadcast_from(Index c) const {
    return {broadcast(k.mean.hi[c]), broadcast(k.mean.lo[c]), broadcast(k.scale[c]), broadcast(k.shift[c])};
  }
  template <class Access>
  HWY_INLINE Coefficients get(Index c, Access access) const {
    return {access.get(k.mean.hi + c), access.get(k.mean.lo + c), access.get(k.scale + c), access.get(k.shift + c)};
  }
  template <class Access>
  HWY_INLINE void apply(Index i, const Coefficients& q, Access access) const {
    const Vector xmu = centred_vector(x, access.get(x + i), q.mean_hi, q.mean_lo);
    access.put(hn::Add(hn::Mul(xmu, q.scale), q.shift), y + i);
  }
};

template <class T>
struct InputGradientPass {
  const T* x;
  const T* dy;
  T* dx;
  BackwardCoefficients k;

  HWY_INLINE const T* output() const { return dx; }
  struct Coefficients {
    Vector mean_hi, mean_lo, invstd, mean_dy, slope, scale;
  };
  HWY_INLINE Coefficients broadcast_from(Index c) const {
    return {broadcast(k.mean.hi[c]), broadcast(k.mean.lo[c]), broadcast(k.invstd[c]),
            broadcast(k.mean_dy[c]), broadcast(k.slope[c]),   broadcast(k.scale[c])};
  }
  template <class Access>
  HWY_INLINE Coefficients get(Index c, Access access) const {
    return {access.get(k.mean.hi + c), access.get(k.mean.lo + c), access.get(k.invstd + c),
            access.get(k.mean_dy + c), access.get(k.slope + c),   access.get(k.scale + c)};
  }
  template <class Access>
  HWY_INLINE void apply(Index i, const Coefficients& q, Access access) const {
    const Vector xhat = hn::Mul(centred_vector(x, access.get(x + i), q.mean_hi, q.mean_lo), q.invstd);
    const Vector centred_dy = hn::Sub(access.get(dy + i), q.mean_dy);
    access.put(hn::Mul(hn::Sub(centred_dy, hn::Mul(xhat, q.slope)), q.scale), dx + i);
  }
};

template <class T>
struct ScalePass {
  const T* dy;
  T* dx;
  const double* scale;

  HWY_INLINE const T* output() const { return dx; }
  struct Coefficients {
    Vector scale;
  };
  HWY_INLINE Coefficients broadcast_from(Index c) const { return {broadcast(scale[c])}; }
  template <class Access>
  HWY_INLINE Coefficients get(Index c, Access access) const {
    return {access.get(scale + c)};
  }
  template <class Access>
  HWY_INLINE void apply(Index i, const Coefficients& q, Access access) const {
    access.put(hn::Mul(access.get(dy + i), q.scale), dx + i);
  }
};

/// Rows [begin, end) of a pass, one vector of channels: its coefficients are loaded once for all rows.
template <class Pass>
struct RowsOfPass {
  Pass pass;
  Index channels, begin, end;
  bool streams;

  HWY_INLINE void operator()(Index c, Whole access) const {
    streams ? run(c, access, Streaming{}) : run(c, access, access);
  }
  HWY_INLINE void operator()(Index c, First access) const { run(c, access, access); }

  template <class Channels, class Elements>
  HWY_INLINE void run(Index c, Channels channel_access, Elements access) const {
    const auto coefficients = pass.get(c, channel_access);
    for (Index r = begin; r < end; ++r) pass.apply(r * channels + c, coefficients, access);
  }
};

/// Rows that share one load of the coefficients; few, so that each row still reads as a stream.
inline constexpr Index kRowsPerLoad = 4;

template <class Pass>
HWY_INLINE void run_rows(BlockShape shape, const Pass& pass) {
  const Index channels = shape.sample.channels;
  const Index rows = shape.samples * shape.sample.positions;
  const bool streams = shape.streams && Streaming::is_aligned(pass.output()) && channels % kWidth == 0;
  for (Index r = 0; r < rows; r += kRowsPerLoad) {
    for_channel_vectors(channels, RowsOfPass<Pass>{pass, channels, r, std::min(r + kRowsPerLoad, rows), streams});
  }
}

/// Elements [begin, end) of one plane, whole vectors with `access`.
template <class Pass, class Access>
HWY_INLINE Index run_vectors(Index begin, Index end, const Pass& pass, const typename Pass::Coefficients& coefficients,
                             Access access) {
  Index i = begin;
  for (; i + kWidth <= end; i += kWidth) pass.apply(i, coefficients, access);
  return i;
}

template <class Pass>
HWY_INLINE void run_planes(BlockShape shape, const Pass& pass) {
  const Index channels = shape.sample.channels;
  const Index positions = shape.sample.positions;
  const bool streams = shape.streams && Streaming::can_be_aligned(pass.output());
  for (Index plane = 0; plane < shape.samples * channels; ++plane) {
    const auto coefficients = pass.broadcast_from(plane % channels);
    const Index end = (plane + 1) * positions;
    Index i = plane * positions;
    if (streams) {
      const Index head = std::min(Streaming::before_aligned(pass.output() + i), end - i);
      if (head > 0) pass.apply(i, coefficients, First{head});
      i = run_vectors(i + head, end, pass, coefficients, Streaming{});
    } else {
      i = run_vectors(i, end, pass, coefficients, Whole{});
    }
    if (i < end) pass.apply(i, coefficients, First{end - i});
  }
}

template <class Pass>
HWY_INLINE void run_pass(BlockShape shape, const Pass& pass) {
  shape.sample.is_row_major() ? run_rows(shape, pass) : run_planes(shape, pass);
  if (shape.streams) hwy::FlushStream();
}

template <class T>
void normalize(const void* x, void* y, BlockShape shape, ForwardCoefficients k) {
  run_pass(shape, NormalizePass<T>{static_cast<const T*>(x), static_cast<T*>(y), k});
}

template <class T>
void input_gradient(const void* x, const void* dy, void* dx, BlockShape shape, BackwardCoefficients k) {
  run_pass(shape, InputGradientPass<T>{static_cast<const T*>(x), static_cast<const T*>(dy), static_cast<T*>(dx), k});
}

template <class T>
void scale_by_channel(const void* dy, void* dx, BlockShape shape, const double* scale) {
  run_pass(shape, ScalePass<T>{static_cast<const T*>(dy), static_cast<T*>(dx), scale});
}

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
