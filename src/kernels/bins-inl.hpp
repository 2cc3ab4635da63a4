// SPDX-License-Identifier: MIT
// Binned accumulators of any values, with vectors. Included once per target.
#if defined(SYNCBN_KERNELS_BINS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_BINS_INL
#undef SYNCBN_KERNELS_BINS_INL
#else
#define SYNCBN_KERNELS_BINS_INL
#endif

#include "kernels/plain_deposit.hpp"
#include "kernels/vectors-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

/// How far the values of an accumulator go above its top bin's unit u_t: to the end of the top bin, 2^35 u_t, or below
/// 2^13 u_t. Near values fit the second bin's low bits as a whole, which saves operations.
enum class Reach { full, near };
inline constexpr std::int64_t kNearHalf = std::int64_t{1} << 13;

/// rows * bits, modulo 2^64, 32 bits at a time; rows < 2^31.
HWY_INLINE IntegerVector times_rows(IntegerVector bits, Index rows) {
  const hn::Repartition<std::uint32_t, Doubles> d32;
  const hn::Repartition<std::uint64_t, Doubles> d64;
  const auto factor = hn::Set(d32, static_cast<std::uint32_t>(rows));
  const auto low = hn::MulEven(hn::BitCast(d32, bits), factor);
  const auto high = hn::MulEven(hn::BitCast(d32, hn::ShiftRight<32>(hn::BitCast(d64, bits))), factor);
  return hn::BitCast(Integers(), hn::Add(low, hn::ShiftLeft<32>(high)));
}

/// K bins of one vector of channels, in registers. v + magic is v rounded to a multiple of the bin's unit, and its bits
/// are those of the magic number plus that multiple: so whole bit patterns are summed as integers, and the magic
/// number's bits, once per row, are taken off at the end. All vector operations share the same ports here, so their
/// number is the cost: per value and bin three additions of doubles and one of integers (the last bin: one and one),
/// and two for the check.
///
/// With R_j(v) = v rounded to a multiple of u_j, the slices down to bin j add up to R_j(v), whatever the way there. So
/// of near values R_{t-1} is summed, from one addition, and the second bin is the difference of two sums.
template <int K, Reach kReach = Reach::full>
struct VectorBins {
  static constexpr std::int64_t kHalf = kReach == Reach::near ? kNearHalf : kTopHalf;
  Vector magic[K];
  IntegerVector plain_bits;  // of magic[0] without kHalf
  IntegerVector changed;     // bits of the top bin's sums that ever differed from plain_bits
  IntegerVector sum[K];

  HWY_INLINE VectorBins(const BinColumns& columns, Index c) {
    const Integers d;
    magic[0] = load(columns.magic + c);
    plain_bits = hn::Sub(hn::BitCast(d, magic[0]), hn::Set(d, kTopHalf));
    if (kHalf != kTopHalf) magic[0] = hn::BitCast(Doubles(), hn::Add(plain_bits, hn::Set(d, kHalf)));
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
      const bool is_whole = k == 0 && kReach == Reach::near;
      if (k + 1 < K && !is_whole) v = hn::Sub(v, hn::Sub(shifted, magic[k]));
    }
  }

  HWY_INLINE bool all_fit() const {
    const Integers d;
    auto fits = hn::Eq(hn::AndNot(hn::Set(d, 2 * kHalf - 1), changed), hn::Zero(d));
    // With kNearHalf in place of kTopHalf, infinity, which lets nothing through, would be a number.
    if (kReach == Reach::near) fits = hn::And(fits, hn::Lt(plain_bits, hn::Set(d, std::int64_t{0x7f0} << 52)));
    return hn::AllTrue(d, fits);
  }

  /// Bin k's sum without the magic numbers' bits: rows * bits(magic). (All the bits: where no window is open the lower
  /// bins' magic numbers are subnormal.)
  HWY_INLINE IntegerVector slices(int k, Index rows) const {
    const IntegerVector slice = hn::Sub(sum[k], times_rows(hn::BitCast(Integers(), magic[k]), rows));
    if (k == 1 && kReach == Reach::near) return hn::Sub(slice, hn::ShiftLeft<kBinBits>(slices(0, rows)));
    return slice;
  }
};

/// The bins of one full strip += slices.
template <int K>
HWY_INLINE void add_strip(const BinColumns& columns, Index channel, const std::int64_t* slices) {
  const Integers d;
  for (int k = 0; k < K; ++k) {
    std::int64_t* bin = columns.bin + k * columns.stride + channel;
    for (Index i = 0; i < kStrip; i += kWidth) {
      hn::StoreU(hn::Add(hn::LoadU(d, bin + i), hn::Load(d, slices + k * kStrip + i)), d, bin + i);
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
  add_strip<K>(a, channel, waiting[0][0]);
  add_strip<K>(b, channel, waiting[1][0]);
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

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
