// SPDX-License-Identifier: MIT
// Deposits into binned accumulators, with vectors. Included once per target.
#if defined(SYNCBN_KERNELS_DEPOSIT_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_DEPOSIT_INL
#undef SYNCBN_KERNELS_DEPOSIT_INL
#else
#define SYNCBN_KERNELS_DEPOSIT_INL
#endif

#include <limits>

#include "kernels/bins-inl.hpp"
#include "kernels/float_strips-inl.hpp"
#include "kernels/plain_deposit.hpp"
#include "kernels/sums-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

struct VectorPairs {
  PairRows rows;
  HWY_INLINE void operator()(Index r, Index c, Vector& a, Vector& b) const {
    a = load(rows.a + r * rows.stride + c);
    b = load(rows.b + r * rows.stride + c);
  }
};

template <int K>
Index deposit_pairs(PairRows rows, BinColumns a, BinColumns b, Index from) {
  return deposit_strips<K>(rows.rows, rows.channels, a, b, from, VectorPairs{rows}, LoadPairs{rows});
}

template <class T>
struct VectorValues {
  const T* x;
  Index pitch;
  HWY_INLINE void operator()(Index r, Index c, Vector& a, Vector& b) const {
    a = load(x + r * pitch + c);
    b = hn::Mul(a, a);
  }
};

template <class T>
struct VectorGradients {
  const T* x;
  const T* dy;
  Index pitch;
  Mean mean;
  HWY_INLINE void operator()(Index r, Index c, Vector& a, Vector& b) const {
    a = load(dy + r * pitch + c);
    b = hn::Mul(a, centred_vector(x, load(x + r * pitch + c), load(mean.hi + c), load(mean.lo + c)));
  }
};

/// The cheaper ways first.
template <class Source, class VectorLoad, class PlainLoad>
HWY_INLINE Index deposit_floats(const Source& source, Index rows, Index channels, const BinColumns& a,
                                const BinColumns& b, Index from, const VectorLoad& vector_load,
                                const PlainLoad& plain_load) {
  FloatDeposits<Source> deposits;
  Index c = from;
  for (; c + kStrip <= channels; c += kStrip) {
    if (deposits.is_worth_trying()) {
      const Verdicts verdicts = deposits.deposit(source, rows, c, a, b);
      if (verdicts.fit()) continue;
      if (verdicts.is_misfit()) return c;
    }
    if (!deposit_full_strip<3>(rows, c, a, b, vector_load)) return c;
  }
  if (c < channels && !deposit_strip<3>(rows, c, channels - c, a, b, plain_load)) return c;
  return channels;
}

template <class T>
Index deposit_values(const void* x_data, Index rows, Index pitch, Index channels, BinColumns a, BinColumns b,
                     Index from) {
  const T* x = static_cast<const T*>(x_data);
  const VectorValues<T> vector_load{x, pitch};
  const LoadSquares<T> plain_load{x, pitch};
  if constexpr (!std::is_same_v<T, double>) {
    return deposit_floats(FloatValues<T>{x, pitch}, rows, channels, a, b, from, vector_load, plain_load);
  } else {
    return deposit_strips<3>(rows, channels, a, b, from, vector_load, plain_load);
  }
}

template <class T>
Index deposit_gradients(const void* x_data, const void* dy_data, Index rows, Index pitch, Index channels, Mean mean,
                        BinColumns a, BinColumns b, Index from) {
  const T* x = static_cast<const T*>(x_data);
  const T* dy = static_cast<const T*>(dy_data);
  const VectorGradients<T> vector_load{x, dy, pitch, mean};
  const LoadGradients<T> plain_load{x, dy, pitch, mean};
  if constexpr (!std::is_same_v<T, double>) {
    return deposit_floats(FloatGradients<T>{x, dy, pitch, mean.hi}, rows, channels, a, b, from, vector_load,
                          plain_load);
  } else {
    return deposit_strips<bins_for(DataTypeOf<T>::value)>(rows, channels, a, b, from, vector_load, plain_load);
  }
}

/// Magnitudes are compared as integers, whose order is that of the numbers, with infinity and then NaN at the upper
/// end.
template <class VectorLoad, class PlainLoad>
HWY_INLINE void strip_extremes_of(Index rows, Index from, Index width, const VectorLoad& load_pair,
                                  const PlainLoad& plain_load, StripExtremes& extremes) {
  if (width != kStrip) return strip_extremes(rows, from, width, plain_load, extremes);
  const Integers d;
  const auto infinity = hn::BitCast(d, hn::Set(Doubles(), std::numeric_limits<double>::infinity()));
  for (Index v = 0; v < kStrip; v += kWidth) {
    IntegerVector largest_a = hn::Zero(d);
    IntegerVector largest_b = hn::Zero(d);
    for (Index r = 0; r < rows; ++r) {
      Vector a, b;
      load_pair(r, from + v, a, b);
      largest_a = hn::Max(largest_a, hn::BitCast(d, hn::Abs(a)));
      largest_b = hn::Max(largest_b, hn::BitCast(d, hn::Abs(b)));
    }
    store(hn::BitCast(Doubles(), hn::Min(largest_a, infinity)), extremes.a + v);
    store(hn::BitCast(Doubles(), hn::Min(largest_b, infinity)), extremes.b + v);
  }
}

inline void pair_extremes(PairRows rows, Index from, Index width, StripExtremes& extremes) {
  strip_extremes_of(rows.rows, from, width, VectorPairs{rows}, LoadPairs{rows}, extremes);
}

/// The largest magnitudes of a strip of values, not f64.
template <class T>
void float_extremes(const T* x, Index rows, Index channels, double* largest) {
  for (Index v = 0; v < kStrip; v += kFloats) {
    Magnitudes magnitudes;
    for (Index r = 0; r < rows; ++r) magnitudes.add<false>(FloatRow(x + r * channels + v).floats);
    const Vector infinity = broadcast(std::numeric_limits<double>::infinity());
    for (int h = 0; h < 2; ++h) {
      const Vector found = magnitudes.largest_of(h);
      store(hn::IfThenElse(hn::Lt(found, infinity), found, infinity), largest + v + h * kWidth);
    }
  }
}

template <class T>
void value_extremes(const void* x_data, Index rows, Index channels, Index from, Index width, StripExtremes& extremes) {
  const T* x = static_cast<const T*>(x_data);
  if constexpr (!std::is_same_v<T, double>) {
    if (width == kStrip) {
      float_extremes(x + from, rows, channels, extremes.a);
      for (Index i = 0; i < kStrip; ++i) extremes.b[i] = extremes.a[i] * extremes.a[i];
      return;
    }
  }
  strip_extremes_of(rows, from, width, VectorValues<T>{x, channels}, LoadSquares<T>{x, channels}, extremes);
}

template <class T>
void gradient_extremes(const void* x_data, const void* dy_data, Index rows, Index channels, Mean mean, Index from,
                       Index width, StripExtremes& extremes) {
  const T* x = static_cast<const T*>(x_data);
  const T* dy = static_cast<const T*>(dy_data);
  strip_extremes_of(rows, from, width, VectorGradients<T>{x, dy, channels, mean},
                    LoadGradients<T>{x, dy, channels, mean}, extremes);
}

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
