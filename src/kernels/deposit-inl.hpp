// SPDX-License-Identifier: MIT
// Deposits into binned accumulators, with vectors. Included once per target.
#if defined(SYNCBN_KERNELS_DEPOSIT_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_DEPOSIT_INL
#undef SYNCBN_KERNELS_DEPOSIT_INL
#else
#define SYNCBN_KERNELS_DEPOSIT_INL
#endif

#include "kernels/plain_deposit.hpp"
#include "kernels/sums-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

/// K bins of one vector of channels, in registers. v + magic is v rounded to a
/// multiple of the bin's unit, and its bits are those of the magic number plus
/// that multiple: so whole bit patterns are summed as integers, and the magic
/// number's bits, once per row, are taken off at the end. All vector operations
/// share the same ports here, so their number is the cost: per value and bin
/// three additions of doubles and one of integers (the last bin: one and one),
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

  /// Bin k's sum without the magic numbers' bits: rows * bits(magic), of which
  /// only the upper 13 bits (and, in the top bin, that of kTopHalf) are not 0.
  HWY_INLINE IntegerVector slices(int k, Index rows) const {
    const hn::Repartition<std::uint32_t, Doubles> d32;
    const hn::Repartition<std::uint64_t, Doubles> d64;
    const auto high = hn::BitCast(d32, hn::ShiftRight<51>(hn::BitCast(d64, magic[k])));
    const auto times_rows = hn::MulEven(high, hn::Set(d32, static_cast<std::uint32_t>(rows)));
    const IntegerVector all = hn::Sub(sum[k], hn::BitCast(Integers(), hn::ShiftLeft<51>(times_rows)));
    return k == 0 ? hn::Sub(all, hn::Set(Integers(), rows * kTopHalf)) : all;
  }
};

/// One full strip, vectors of it one after the other; or nothing, if a value
/// does not fit. The first vectors are flushed only when the last has been
/// checked, so their sums wait.
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
  for (int k = 0; k < K; ++k) {
    std::int64_t* bin_a = a.bin + k * a.stride + channel;
    std::int64_t* bin_b = b.bin + k * b.stride + channel;
    for (Index i = 0; i < kStrip; i += kWidth) {
      const Integers d;
      hn::StoreU(hn::Add(hn::LoadU(d, bin_a + i), hn::Load(d, waiting[0][k] + i)), d, bin_a + i);
      hn::StoreU(hn::Add(hn::LoadU(d, bin_b + i), hn::Load(d, waiting[1][k] + i)), d, bin_b + i);
    }
  }
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

struct VectorSquares {
  const float* x;
  Index channels;
  HWY_INLINE void operator()(Index r, Index c, Vector& a, Vector& b) const {
    a = load(x + r * channels + c);
    b = hn::Mul(a, a);
  }
};

inline Index deposit_values(const void* x_data, Index rows, Index channels, BinColumns a, BinColumns b, Index from) {
  const float* x = static_cast<const float*>(x_data);
  return deposit_strips<3>(rows, channels, a, b, from, VectorSquares{x, channels}, LoadSquares<float>{x, channels});
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

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
