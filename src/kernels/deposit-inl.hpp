// SPDX-License-Identifier: MIT
// Deposits into binned accumulators, with vectors. Included once per target.
#if defined(SYNCBN_KERNELS_DEPOSIT_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_DEPOSIT_INL
#undef SYNCBN_KERNELS_DEPOSIT_INL
#else
#define SYNCBN_KERNELS_DEPOSIT_INL
#endif

#include <limits>

#include "kernels/plain_deposit.hpp"
#include "kernels/sums-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

/// K bins of one vector of channels, in registers. v + magic is v rounded to a multiple of the bin's unit, and its bits
/// are those of the magic number plus that multiple: so whole bit patterns are summed as integers, and the magic
/// number's bits, once per row, are taken off at the end. All vector operations share the same ports here, so their
/// number is the cost: per value and bin three additions of doubles and one of integers (the last bin: one and one),
/// and two for the check.
template <int K>
struct VectorBins {
  Vector magic[K];
  IntegerVector plain_bits;  // of magic[0] without kTopHalf
  IntegerVector changed;     // bits of the top bin's sums that ever differed from plain_bits
  IntegerVector sum[K];

  HWY_INLINE VectorBins(const BinColumns& columns, Index c) {
    const Integers d;
    magic[0] = load(columns.magic + c);
    plain_bits = hn::Sub(hn::BitCast(d, magic[0]), hn::Set(d, kTopHalf));
    changed = hn::Zero(d);
    Vector plain = hn::BitCast(Doubles(), plain_bits);
    for (int k = 1; k < K; ++k) magic[k] = plain = hn::Mul(plain, broadcast(kNextBin));
    for (int k = 0; k < K; ++k) sum[k] = hn::Zero(d);
  }

  HWY_INLINE void add(Vector v) {
    const Integers d;
    for (int k = 0; k < K; ++k) {
      const Vector shifted = hn::Add(v, magic[k]);
      if (k == 0) changed = hn::Or(changed, hn::Xor(hn::BitCast(d, shifted), plain_bits));
      sum[k] = hn::Add(sum[k], hn::BitCast(d, shifted));
      if (k + 1 < K) v = hn::Sub(v, hn::Sub(shifted, magic[k]));
    }
  }

  HWY_INLINE bool all_fit() const {
    const Integers d;
    return hn::AllTrue(d, hn::Eq(hn::AndNot(hn::Set(d, 2 * kTopHalf - 1), changed), hn::Zero(d)));
  }

  /// Bin k's sum without the magic numbers' bits: rows * bits(magic), 32 bits at a time. (All the bits: where no window
  /// is open the lower bins' magic numbers are subnormal.)
  HWY_INLINE IntegerVector slices(int k, Index rows) const {
    const hn::Repartition<std::uint32_t, Doubles> d32;
    const hn::Repartition<std::uint64_t, Doubles> d64;
    const auto factor = hn::Set(d32, static_cast<std::uint32_t>(rows));
    const auto bits = hn::BitCast(d64, magic[k]);
    const auto low = hn::MulEven(hn::BitCast(d32, bits), factor);
    const auto high = hn::MulEven(hn::BitCast(d32, hn::ShiftRight<32>(bits)), factor);
    return hn::Sub(sum[k], hn::BitCast(Integers(), hn::Add(low, hn::ShiftLeft<32>(high))));
  }
};

/// The bins of one full strip += slices.
template <int K>
HWY_INLINE void add_strip(const BinColumns& columns, Index channel, const std::int64_t (*slices)[kStrip]) {
  const Integers d;
  for (int k = 0; k < K; ++k) {
    std::int64_t* bin = columns.bin + k * columns.stride + channel;
    for (Index i = 0; i < kStrip; i += kWidth) {
      hn::StoreU(hn::Add(hn::LoadU(d, bin + i), hn::Load(d, slices[k] + i)), d, bin + i);
    }
  }
}

/// One full strip, vectors of it one after the other; or nothing, if a value does not fit. The first vectors are
/// flushed only when the last has been checked, so their sums wait.
template <int K, class Load>
HWY_INLINE bool deposit_full_strip(Index rows, Index channel, const BinColumns& a, const BinColumns& b,
                                   const Load& load_pair) {
  constexpr Index kVectors = kStrip / kWidth;
  alignas(64) std::int64_t waiting[2][K][kStrip];
  for (Index v = 0; v < kVectors; ++v) {
    const Index c = channel + v * kWidth;
    VectorBins<K> bins_a(a, c);
    VectorBins<K> bins_b(b, c);
    for (Index r = 0; r < rows; ++r) {
      Vector value_a, value_b;
      load_pair(r, c, value_a, value_b);
      bins_a.add(value_a);
      bins_b.add(value_b);
    }
    if (!bins_a.all_fit() || !bins_b.all_fit()) return false;
    for (int k = 0; k < K; ++k) {
      hn::Store(bins_a.slices(k, rows), Integers(), waiting[0][k] + v * kWidth);
      hn::Store(bins_b.slices(k, rows), Integers(), waiting[1][k] + v * kWidth);
    }
  }
  add_strip<K>(a, channel, waiting[0]);
  add_strip<K>(b, channel, waiting[1]);
  return true;
}

template <int K, class VectorLoad, class PlainLoad>
HWY_INLINE Index deposit_strips(Index rows, Index channels, const BinColumns& a, const BinColumns& b, Index from,
                                const VectorLoad& vector_load, const PlainLoad& plain_load) {
  Index c = from;
  for (; c + kStrip <= channels; c += kStrip) {
    if (!deposit_full_strip<K>(rows, c, a, b, vector_load)) return c;
  }
  if (c < channels && !deposit_strip<K>(rows, c, channels - c, a, b, plain_load)) return c;
  return channels;
}

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
  Index channels;
  HWY_INLINE void operator()(Index r, Index c, Vector& a, Vector& b) const {
    a = load(x + r * channels + c);
    b = hn::Mul(a, a);
  }
};

/// Values of ordinary size that f32 holds, deposited with fewer operations: x and x^2 of one vector of channels.
///
/// With t the top bin and R_j(v) = v rounded to a multiple of u_j, the slices down to bin j add up to R_j(v), whatever
/// the way there. So R_t and R_{t-1} are summed, each from one addition to a magic number, and the second bin is the
/// difference of their sums. This needs |v| < 2^13 u_t, or R_{t-1} does not fit the low bits of a double. If moreover x
/// is a multiple of a grid g with g >= u_{t-1} of x's window and g^2 >= u_{t-2} of that of x^2, then R_{t-1}(x) = x,
/// and the rest of x^2 below bin t-1 is a multiple of u_{t-2}: it is its own slice, and doubles add such rests exactly.
/// 17 vector operations instead of 27. Values whose last bits lie below g (|x| < 2^-14 u_t or so) and windows too high
/// over the values are left to VectorBins.
struct OrdinaryValues {
  Vector top_a, grid, top_b, second_b;   // magic numbers
  IntegerVector range_bits, range_mask;  // of top_a's sums while |x| is small enough for both windows
  IntegerVector grid_lag;                // log2(g / u_{t-1})
  Vector third_b;                        // magic number of x^2's lowest bin
  IntegerVector sum_top_a, sum_grid, sum_top_b, sum_second_b, outside;
  Vector rest_b;
  bool is_eligible;

  HWY_INLINE OrdinaryValues(const BinColumns& a, const BinColumns& b, Index c) {
    const Integers d;
    const auto exponent_of_unit = [&](const double* magic) HWY_ATTR {
      const auto bits = hn::BitCast(d, load(magic + c));
      return hn::Sub(hn::ShiftRight<52>(bits), hn::Set(d, 1023 + 52));
    };
    const auto magic_of = [&](IntegerVector exponent) HWY_ATTR {
      const auto biased = hn::ShiftLeft<52>(hn::Add(exponent, hn::Set(d, 1023 + 52)));
      return hn::BitCast(Doubles(), hn::Or(biased, hn::Set(d, std::int64_t{1} << 51)));
    };
    const auto unit_a = exponent_of_unit(a.magic);
    const auto unit_b = exponent_of_unit(b.magic);
    // |x| < 2^reach: so that x < 2^13 u_t and x^2 < 2^13 u_t.
    const auto reach = hn::Min(hn::Add(unit_a, hn::Set(d, 13)), hn::ShiftRight<1>(hn::Add(unit_b, hn::Set(d, 13))));
    const auto range = hn::Sub(reach, unit_a);
    const auto is_ordinary = [&](IntegerVector unit) HWY_ATTR {
      return hn::And(hn::Lt(unit, hn::Set(d, 700)), hn::Gt(unit, hn::Set(d, -700)));
    };
    is_eligible =
        hn::AllTrue(d, hn::And(hn::Gt(range, hn::Zero(d)), hn::And(is_ordinary(unit_a), is_ordinary(unit_b))));
    if (!is_eligible) return;

    const auto one = hn::Set(d, 1);
    const auto half_range = hn::Shl(one, range);
    const auto second_a = hn::Sub(unit_a, hn::Set(d, kBinBits));
    const auto grid_exponent = hn::Max(second_a, hn::ShiftRight<1>(hn::Sub(unit_b, hn::Set(d, 2 * kBinBits - 1))));
    grid_lag = hn::Sub(grid_exponent, second_a);
    range_bits = hn::Add(hn::BitCast(d, magic_of(unit_a)), half_range);
    top_a = hn::BitCast(Doubles(), range_bits);
    range_bits = hn::Sub(range_bits, half_range);
    range_mask = hn::Neg(hn::Add(half_range, half_range));
    grid = magic_of(grid_exponent);
    top_b = magic_of(unit_b);
    second_b = magic_of(hn::Sub(unit_b, hn::Set(d, kBinBits)));
    third_b = magic_of(hn::Sub(unit_b, hn::Set(d, 2 * kBinBits)));
    sum_top_a = sum_grid = sum_top_b = sum_second_b = outside = hn::Zero(d);
    rest_b = hn::Zero(Doubles());
  }

  HWY_INLINE void add(Vector x) {
    const Integers d;
    const Vector in_top = hn::Add(x, top_a);
    sum_top_a = hn::Add(sum_top_a, hn::BitCast(d, in_top));
    outside = hn::Or(outside, hn::And(hn::Xor(hn::BitCast(d, in_top), range_bits), range_mask));
    const Vector on_grid = hn::Add(x, grid);
    sum_grid = hn::Add(sum_grid, hn::BitCast(d, on_grid));
    outside = hn::Or(outside, hn::Xor(hn::BitCast(d, hn::Sub(on_grid, grid)), hn::BitCast(d, x)));

    const Vector square = hn::Mul(x, x);
    sum_top_b = hn::Add(sum_top_b, hn::BitCast(d, hn::Add(square, top_b)));
    const Vector in_second = hn::Add(square, second_b);
    sum_second_b = hn::Add(sum_second_b, hn::BitCast(d, in_second));
    rest_b = hn::Add(rest_b, hn::Sub(square, hn::Sub(in_second, second_b)));
  }

  /// Are all values such as they must be? (-0 is not, which costs a little and harms nothing.)
  HWY_INLINE bool all_fit() const { return hn::AllTrue(Integers(), hn::Eq(outside, hn::Zero(Integers()))); }

  /// A sum of bit patterns without the magic number's, `rows` times: its low 51 bits are 0.
  static HWY_INLINE IntegerVector without_magic(IntegerVector sum, Vector magic, Index rows) {
    const hn::Repartition<std::uint32_t, Doubles> d32;
    const hn::Repartition<std::uint64_t, Doubles> d64;
    const auto high = hn::BitCast(d32, hn::ShiftRight<51>(hn::BitCast(d64, magic)));
    const auto times_rows = hn::MulEven(high, hn::Set(d32, static_cast<std::uint32_t>(rows)));
    return hn::Sub(sum, hn::BitCast(Integers(), hn::ShiftLeft<51>(times_rows)));
  }

  /// The slices of both accumulators' three bins, kStrip apart.
  HWY_INLINE void slices(Index rows, std::int64_t* a, std::int64_t* b) const {
    const Integers d;
    const auto half_range = hn::Sub(hn::BitCast(d, top_a), range_bits);
    const hn::Repartition<std::uint32_t, Doubles> d32;
    const auto offsets =
        hn::BitCast(d, hn::MulEven(hn::BitCast(d32, half_range), hn::Set(d32, static_cast<std::uint32_t>(rows))));
    const Vector plain_top_a = hn::BitCast(Doubles(), range_bits);
    const auto first_a = hn::Sub(without_magic(sum_top_a, plain_top_a, rows), offsets);
    const auto all_a = hn::Shl(without_magic(sum_grid, grid, rows), grid_lag);
    hn::Store(first_a, d, a);
    hn::Store(hn::Sub(all_a, hn::ShiftLeft<kBinBits>(first_a)), d, a + kStrip);
    hn::Store(hn::Zero(d), d, a + 2 * kStrip);

    const auto first_b = without_magic(sum_top_b, top_b, rows);
    const auto two_b = without_magic(sum_second_b, second_b, rows);
    hn::Store(first_b, d, b);
    hn::Store(hn::Sub(two_b, hn::ShiftLeft<kBinBits>(first_b)), d, b + kStrip);
    hn::Store(without_magic(hn::BitCast(d, hn::Add(rest_b, third_b)), third_b, 1), d, b + 2 * kStrip);
  }
};

/// One full strip of values, not f64, or nothing if they are not all ordinary.
template <class T>
HWY_INLINE bool deposit_ordinary_strip(const T* x, Index rows, Index channels, Index channel, const BinColumns& a,
                                       const BinColumns& b) {
  alignas(64) std::int64_t waiting_a[3][kStrip], waiting_b[3][kStrip];
  for (Index v = 0; v < kStrip; v += kWidth) {
    OrdinaryValues values(a, b, channel + v);
    if (!values.is_eligible) return false;
    const T* p = x + channel + v;
    for (Index r = 0; r < rows; ++r) values.add(load(p + r * channels));
    if (!values.all_fit()) return false;
    values.slices(rows, waiting_a[0] + v, waiting_b[0] + v);
  }
  add_strip<3>(a, channel, waiting_a);
  add_strip<3>(b, channel, waiting_b);
  return true;
}

template <class T>
Index deposit_values(const void* x_data, Index rows, Index channels, BinColumns a, BinColumns b, Index from) {
  const T* x = static_cast<const T*>(x_data);
  const VectorValues<T> vector_load{x, channels};
  Index extraordinary = 0;
  Index c = from;
  for (; c + kStrip <= channels; c += kStrip) {
    // Where every other strip is not ordinary, trying costs more than it saves.
    const bool try_ordinary = 2 * extraordinary <= (c - from) / kStrip;
    if (try_ordinary && deposit_ordinary_strip(x, rows, channels, c, a, b)) continue;
    extraordinary += try_ordinary ? 1 : 0;
    if (!deposit_full_strip<3>(rows, c, a, b, vector_load)) return c;
  }
  if (c < channels && !deposit_strip<3>(rows, c, channels - c, a, b, LoadSquares<T>{x, channels})) return c;
  return channels;
}

template <class T>
struct VectorGradients {
  const T* x;
  const T* dy;
  Index channels;
  Mean mean;
  HWY_INLINE void operator()(Index r, Index c, Vector& a, Vector& b) const {
    a = load(dy + r * channels + c);
    b = hn::Mul(a, centred_vector(x, load(x + r * channels + c), load(mean.hi + c), load(mean.lo + c)));
  }
};

template <class T>
Index deposit_gradients(const void* x_data, const void* dy_data, Index rows, Index channels, Mean mean, BinColumns a,
                        BinColumns b, Index from) {
  const T* x = static_cast<const T*>(x_data);
  const T* dy = static_cast<const T*>(dy_data);
  return deposit_strips<bins_for(DataTypeOf<T>::value)>(
      rows, channels, a, b, from, VectorGradients<T>{x, dy, channels, mean}, LoadGradients<T>{x, dy, channels, mean});
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

template <class T>
void value_extremes(const void* x_data, Index rows, Index channels, Index from, Index width, StripExtremes& extremes) {
  const T* x = static_cast<const T*>(x_data);
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
