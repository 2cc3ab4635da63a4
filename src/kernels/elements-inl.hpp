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
#include "kernels/parts-inl.hpp"
#include "kernels/sums-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

/// A pass is a struct with: Coefficients for one vector of channels, made by broadcast_from(c) or get(c, access);
/// apply(offset, coefficients, access), which makes the outputs of one vector of elements; and prefetch(offset, bytes
/// ahead) of its kInputs inputs. D is what it calculates in: Doubles, or Floats for 16-bit types.
template <class T, class D, bool kHasResidual, bool kHasRelu>
struct NormalizePass {
  using Element = T;
  using Lanes = D;
  using V = hn::Vec<D>;
  const T* x;
  const T* residual;
  T* y;
  ForwardRows<hn::TFromD<D>> k;

  HWY_INLINE T* output() const { return y; }
  static constexpr Index kInputs = kHasResidual ? 2 : 1;
  HWY_INLINE void prefetch(Index i, Index ahead) const {
    prefetch_line(x + i, ahead);
    if (kHasResidual) prefetch_line(residual + i, ahead);
  }
  struct Coefficients {
    V mean_hi, mean_lo, scale, shift;
  };
  HWY_INLINE Coefficients broadcast_from(Index c) const {
    const D d;
    return {hn::Set(d, k.mean_hi[c]), hn::Set(d, k.mean_lo[c]), hn::Set(d, k.scale[c]), hn::Set(d, k.shift[c])};
  }
  template <class Access>
  HWY_INLINE Coefficients get(Index c, Access access) const {
    return {access.get(k.mean_hi + c), access.get(k.mean_lo + c), access.get(k.scale + c), access.get(k.shift + c)};
  }
  template <class Access>
  HWY_INLINE void apply(Index i, const Coefficients& q, Access access) const {
    const V xmu = centred_vector(x, access.get(x + i), q.mean_hi, q.mean_lo);
    V v = hn::MulAdd(xmu, q.scale, q.shift);
    if (kHasResidual) v = hn::Add(v, access.get(residual + i));
    if (kHasRelu) v = hn::IfThenZeroElse(hn::Lt(v, hn::Zero(D())), v);
    access.put(v, y + i);
  }
};

template <class T, class D>
struct InputGradientPass {
  using Element = T;
  using Lanes = D;
  using V = hn::Vec<D>;
  const T* x;
  const T* dy;
  T* dx;
  BackwardRows<hn::TFromD<D>> k;

  HWY_INLINE T* output() const { return dx; }
  static constexpr Index kInputs = 2;
  HWY_INLINE void prefetch(Index i, Index ahead) const {
    prefetch_line(x + i, ahead);
    prefetch_line(dy + i, ahead);
  }
  static constexpr bool kNeedsInvstd = std::is_same_v<T, double>;
  struct Coefficients {
    V mean_hi, mean_lo, scale, slope, offset, invstd;
  };
  HWY_INLINE Coefficients broadcast_from(Index c) const {
    const D d;
    return {hn::Set(d, k.mean_hi[c]), hn::Set(d, k.mean_lo[c]), hn::Set(d, k.scale[c]),
            hn::Set(d, k.slope[c]),   hn::Set(d, k.offset[c]),  kNeedsInvstd ? hn::Set(d, k.invstd[c]) : hn::Zero(d)};
  }
  template <class Access>
  HWY_INLINE Coefficients get(Index c, Access access) const {
    return {access.get(k.mean_hi + c), access.get(k.mean_lo + c),
            access.get(k.scale + c),   access.get(k.slope + c),
            access.get(k.offset + c),  kNeedsInvstd ? access.get(k.invstd + c) : hn::Zero(D())};
  }
  template <class Access>
  HWY_INLINE void apply(Index i, const Coefficients& q, Access access) const {
    const V xmu = centred_vector(x, access.get(x + i), q.mean_hi, q.mean_lo);
    const V g = access.get(dy + i);
    if constexpr (kNeedsInvstd) {
      const V projected = hn::NegMulAdd(hn::Mul(xmu, q.invstd), q.slope, hn::Sub(g, q.offset));
      access.put(hn::Mul(projected, q.scale), dx + i);
    } else {
      access.put(hn::MulAdd(g, q.scale, hn::MulAdd(xmu, q.slope, q.offset)), dx + i);
    }
  }
};

template <class T, class D>
struct ScalePass {
  using Element = T;
  using Lanes = D;
  const T* dy;
  T* dx;
  const hn::TFromD<D>* k;  ///< gamma * invstd

  HWY_INLINE T* output() const { return dx; }
  static constexpr Index kInputs = 1;
  HWY_INLINE void prefetch(Index i, Index ahead) const { prefetch_line(dy + i, ahead); }
  struct Coefficients {
    hn::Vec<D> scale;
  };
  HWY_INLINE Coefficients broadcast_from(Index c) const { return {hn::Set(D(), k[c])}; }
  template <class Access>
  HWY_INLINE Coefficients get(Index c, Access access) const {
    return {access.get(k + c)};
  }
  template <class Access>
  HWY_INLINE void apply(Index i, const Coefficients& q, Access access) const {
    access.put(hn::Mul(access.get(dy + i), q.scale), dx + i);
  }
};

template <class T>
struct MaskPass {
  using Element = T;
  using Lanes = std::conditional_t<kIsHalf<T>, Floats, Doubles>;
  const T* dy;
  const T* y;
  T* g;
  NoRows k = {};

  HWY_INLINE T* output() const { return g; }
  static constexpr Index kInputs = 2;
  HWY_INLINE void prefetch(Index i, Index ahead) const {
    prefetch_line(dy + i, ahead);
    prefetch_line(y + i, ahead);
  }
  struct Coefficients {};
  HWY_INLINE Coefficients broadcast_from(Index) const { return {}; }
  template <class Access>
  HWY_INLINE Coefficients get(Index, Access) const {
    return {};
  }
  template <class Access>
  HWY_INLINE void apply(Index i, const Coefficients&, Access access) const {
    access.put(masked_vector(access.get(dy + i), access.get(y + i)), g + i);
  }
};

/// Vectors that a row gets at once: whole cache lines, or stores past the cache would write them in pieces.
inline constexpr Index kTileVectors = 4;

/// Elements that a pass works on at once.
template <class Pass>
inline constexpr Index kLanesOf = static_cast<Index>(hn::MaxLanes(typename Pass::Lanes()));
template <class Pass>
using WholeFor = WholeOf<typename Pass::Lanes>;
template <class Pass>
using FirstFor = FirstOf<typename Pass::Lanes>;
template <class Pass>
using StreamingFor = StreamingOf<typename Pass::Lanes>;

/// Elements from c on of kRows rows.
template <Index kRows, Index kVectors, class Pass, class Access>
HWY_INLINE void run_tile(const Pass& pass, Index row, Index pitch, Index c, Access access) {
  typename Pass::Coefficients k[kVectors];
  for (Index v = 0; v < kVectors; ++v) k[v] = pass.get(c + v * kLanesOf<Pass>, WholeFor<Pass>{});
  for (Index r = 0; r < kRows; ++r) {
    for (Index v = 0; v < kVectors; ++v) pass.apply(row + r * pitch + c + v * kLanesOf<Pass>, k[v], access);
  }
}

/// kRows rows of C elements, the first at element `row`.
template <Index kRows, bool kPrefetches, class Pass, class Access>
HWY_INLINE void run_tiles(const Pass& pass, Index row, Index pitch, Index channels, Access access) {
  constexpr Index kTile = kTileVectors * kLanesOf<Pass>;
  Index c = 0;
  for (; c + kTile <= channels; c += kTile) {
    if (kPrefetches) prefetch_ahead<kTile>(pass, row + c * kRows, kRows);
    run_tile<kRows, kTileVectors>(pass, row, pitch, c, access);
  }
  for (; c + kLanesOf<Pass> <= channels; c += kLanesOf<Pass>) run_tile<kRows, 1>(pass, row, pitch, c, access);
  if (c == channels) return;
  const FirstFor<Pass> tail{channels - c};
  const auto k = pass.get(c, tail);
  for (Index r = 0; r < kRows; ++r) pass.apply(row + r * pitch + c, k, tail);
}

template <Index kTileRows, bool kPrefetches, class Pass, class Access>
HWY_INLINE void run_all_rows_by(Index rows, Index pitch, Index channels, const Pass& pass, Access access) {
  Index r = 0;
  for (; r + kTileRows <= rows; r += kTileRows) {
    run_tiles<kTileRows, kPrefetches>(pass, r * pitch, pitch, channels, access);
  }
  for (; r < rows; ++r) run_tiles<1, kPrefetches>(pass, r * pitch, pitch, channels, access);
}

/// One row at a time is the order of addresses, which the processor's own prefetcher follows best, and stores even more
/// (256 channels: y through the cache 0.35 ns an element, with two rows in turn 0.6 to 0.7). More rows share a load of
/// their coefficients where these do not stay in L1 (2048 channels: 0.56 ns; four rows 0.3), where a row is hardly longer
/// than a tile, where all is in L2 anyway, and where one input is asked for ahead while stores go past the cache (256
/// channels: 0.18 ns, with one row 0.21). Elsewhere it does not pay to ask ahead.
template <class Pass, class Access>
HWY_INLINE void run_all_rows(Index rows, Index pitch, Index channels, bool streams, const Pass& pass, Access access) {
  constexpr Index kSmallPass = Index{2} << 20;
  constexpr Index kBytes = static_cast<Index>(sizeof(typename Pass::Element)) * (Pass::kInputs + 1);
  const bool prefetches = rows * channels * kBytes <= kSmallPass || (streams && Pass::kInputs == 1);
  if (pitch != channels) {  // parts of rows: not in the order of addresses anyway
    run_all_rows_by<2, true>(rows, pitch, channels, pass, access);
  } else if (channels < 128 || (channels > 512 && prefetches)) {
    run_all_rows_by<4, true>(rows, pitch, channels, pass, access);
  } else if (channels > 512) {
    run_all_rows_by<4, false>(rows, pitch, channels, pass, access);
  } else if (prefetches) {
    run_all_rows_by<2, true>(rows, pitch, channels, pass, access);
  } else {
    run_all_rows_by<1, false>(rows, pitch, channels, pass, access);
  }
}

/// Elements [begin, end) that need not begin at channel 0; coefficients(i) gives those of elements i and following.
template <class Pass, class Coefficients>
HWY_INLINE void run_streaming(Index begin, Index end, const Pass& pass, const Coefficients& coefficients) {
  Index i = begin;
  const Index head = std::min(StreamingFor<Pass>::before_aligned(pass.output() + i), end - i);
  if (head > 0) {
    pass.apply(i, coefficients(i, FirstFor<Pass>{head}), FirstFor<Pass>{head});
    i += head;
  }
  for (; i + kLanesOf<Pass> <= end; i += kLanesOf<Pass>)
    pass.apply(i, coefficients(i, WholeFor<Pass>{}), StreamingFor<Pass>{});
  if (i < end) pass.apply(i, coefficients(i, FirstFor<Pass>{end - i}), FirstFor<Pass>{end - i});
}

/// Rows of more channels than this are long enough for a tail of their own, past the cache and through it.
inline constexpr Index kFlatChannels = 768;
inline constexpr Index kFlatChannelsInCache = 32;

/// Coefficients that go on with channel 0 behind the last, so that a vector of elements may begin at any channel.
template <class D>
class CyclicRows {
 public:
  using Number = hn::TFromD<D>;
  explicit CyclicRows(Index channels) : channels_(channels) {}

  ForwardRows<Number> cyclic(const ForwardRows<Number>& k) {
    return {cyclic(k.mean_hi), cyclic(k.mean_lo), cyclic(k.scale), cyclic(k.shift)};
  }
  BackwardRows<Number> cyclic(const BackwardRows<Number>& k) {
    return {cyclic(k.mean_hi), cyclic(k.mean_lo), cyclic(k.scale), cyclic(k.slope), cyclic(k.offset), cyclic(k.invstd)};
  }
  const Number* cyclic(const Number* values) {
    if (values == nullptr) return nullptr;
    Number* to = rows_[used_++];
    std::copy_n(values, channels_, to);
    for (Index i = 0; i < kMore; ++i) to[channels_ + i] = to[i];
    return to;
  }
  NoRows cyclic(NoRows) { return {}; }

 private:
  static constexpr Index kMore = static_cast<Index>(hn::MaxLanes(D()));
  Index channels_;
  int used_ = 0;
  alignas(64) Number rows_[6][kFlatChannels + kMore];
};

/// Elements [0, end) of dense rows of C elements, of whatever number, without a tail in every row. Stores past the cache
/// must not stop in the middle of lines: 127 channels took five times as long.
template <class Pass, class Access>
HWY_INLINE void run_flat(Index head, Index end, Index channels, const Pass& pass, Access access) {
  constexpr Index kLanes = kLanesOf<Pass>;
  CyclicRows<typename Pass::Lanes> rows(channels);
  Pass flat = pass;
  flat.k = rows.cyclic(pass.k);

  Index i = std::min(head, end);
  if (i > 0) flat.apply(0, flat.get(0, FirstFor<Pass>{i}), FirstFor<Pass>{i});
  Index c = i % channels;
  const Index step = kLanes % channels;
  for (; i + kLanes <= end; i += kLanes) {
    flat.apply(i, flat.get(c, WholeFor<Pass>{}), access);
    c += step;
    if (c >= channels) c -= channels;
  }
  if (i < end) flat.apply(i, flat.get(c, FirstFor<Pass>{end - i}), FirstFor<Pass>{end - i});
}

template <class Pass>
HWY_INLINE void run_rows(BlockShape shape, const Pass& pass) {
  const Index channels = shape.sample.channels;
  const Index pitch = shape.sample.pitch_or_channels();
  const Index rows = shape.samples * shape.sample.positions;
  const bool has_tails = pitch % kLanesOf<Pass> != 0 || channels % kLanesOf<Pass> != 0;
  const bool streams = shape.streams && StreamingFor<Pass>::can_be_aligned(pass.output());
  if (has_tails && pitch == channels && channels <= (streams ? kFlatChannels : kFlatChannelsInCache) && rows >= 8) {
    const Index end = rows * channels;
    if (streams)
      return run_flat(StreamingFor<Pass>::before_aligned(pass.output()), end, channels, pass, StreamingFor<Pass>{});
    return run_flat(0, end, channels, pass, WholeFor<Pass>{});
  }
  if (!streams) {
    run_all_rows(rows, pitch, channels, false, pass, WholeFor<Pass>{});
  } else if (StreamingFor<Pass>::is_aligned(pass.output()) && !has_tails) {
    run_all_rows(rows, pitch, channels, true, pass, StreamingFor<Pass>{});
  } else {
    for (Index row = 0; row < rows * pitch; row += pitch) {
      run_streaming(row, row + channels, pass,
                    [&](Index i, auto access) HWY_ATTR { return pass.get(i - row, access); });
    }
  }
}

template <class Pass>
HWY_INLINE void run_planes(BlockShape shape, const Pass& pass) {
  const Index channels = shape.sample.channels;
  const Index positions = shape.sample.positions;
  const bool streams = shape.streams && StreamingFor<Pass>::can_be_aligned(pass.output());
  for (Index n = 0; n < shape.samples; ++n) {
    for (Index c = 0; c < channels; ++c) {
      const auto coefficients = pass.broadcast_from(c);
      const Index begin = (n * shape.sample.pitch_or_channels() + c) * positions;
      const Index end = begin + positions;
      if (streams) {
        run_streaming(begin, end, pass, [&](Index, auto) HWY_ATTR { return coefficients; });
        continue;
      }
      Index i = begin;
      for (; i + kLanesOf<Pass> <= end; i += kLanesOf<Pass>) pass.apply(i, coefficients, WholeFor<Pass>{});
      if (i < end) pass.apply(i, coefficients, FirstFor<Pass>{end - i});
    }
  }
}

template <class Pass>
HWY_INLINE void run_pass(BlockShape shape, const Pass& pass) {
  shape.sample.is_row_major() ? run_rows(shape, pass) : run_planes(shape, pass);
  if (shape.streams) hwy::FlushStream();
}

/// Vectors for coefficients of this type.
template <class Number>
using LanesFor = std::conditional_t<std::is_same_v<Number, float>, Floats, Doubles>;

template <class T, class Number>
void normalize_part(const T* x, T* y, BlockShape shape, const ForwardRows<Number>& k, const T* residual, bool relu) {
  using D = LanesFor<Number>;
  if (residual == nullptr) {
    relu ? run_pass(shape, NormalizePass<T, D, false, true>{x, nullptr, y, k})
         : run_pass(shape, NormalizePass<T, D, false, false>{x, nullptr, y, k});
  } else {
    relu ? run_pass(shape, NormalizePass<T, D, true, true>{x, residual, y, k})
         : run_pass(shape, NormalizePass<T, D, true, false>{x, residual, y, k});
  }
}

template <class T>
void normalize(const void* x_data, void* y_data, BlockShape shape, ForwardCoefficients k, Epilogue epilogue) {
  const T* x = static_cast<const T*>(x_data);
  const T* residual = static_cast<const T*>(epilogue.residual);
  T* y = static_cast<T*>(y_data);
  for_each_part<T>(shape, k, [&](const ChannelPart& part, const auto& rows) {
    const T* added = residual == nullptr ? nullptr : residual + part.offset;
    normalize_part(x + part.offset, y + part.offset, part.shape, rows, added, epilogue.relu);
  });
}

template <class T, class Number>
void input_gradient_part(const T* x, const T* dy, T* dx, BlockShape shape, const BackwardRows<Number>& k) {
  run_pass(shape, InputGradientPass<T, LanesFor<Number>>{x, dy, dx, k});
}

template <class T>
void input_gradient(const void* x_data, const void* dy_data, void* dx_data, BlockShape shape, BackwardCoefficients k) {
  const T* x = static_cast<const T*>(x_data);
  const T* dy = static_cast<const T*>(dy_data);
  T* dx = static_cast<T*>(dx_data);
  for_each_part<T>(shape, k, [&](const ChannelPart& part, const auto& rows) {
    input_gradient_part(x + part.offset, dy + part.offset, dx + part.offset, part.shape, rows);
  });
}

template <class T, class Number>
void scale_part(const T* dy, T* dx, BlockShape shape, const Number* scale) {
  run_pass(shape, ScalePass<T, LanesFor<Number>>{dy, dx, scale});
}

template <class T>
void scale_by_channel(const void* dy_data, void* dx_data, BlockShape shape, const double* scale) {
  const T* dy = static_cast<const T*>(dy_data);
  T* dx = static_cast<T*>(dx_data);
  for_each_part<T>(shape, scale, [&](const ChannelPart& part, const auto* row) {
    scale_part(dy + part.offset, dx + part.offset, part.shape, row);
  });
}

template <class T>
void mask_gradient(const void* dy, const void* y, void* g, BlockShape shape) {
  run_pass(shape, MaskPass<T>{static_cast<const T*>(dy), static_cast<const T*>(y), static_cast<T*>(g)});
}

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
