// SPDX-License-Identifier: MIT
// Binned accumulators of f32 values and their squares, with vectors: fewer operations than for any doubles. Included
// once per target.
#if defined(SYNCBN_KERNELS_FLOATS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_FLOATS_INL
#undef SYNCBN_KERNELS_FLOATS_INL
#else
#define SYNCBN_KERNELS_FLOATS_INL
#endif

#include "hwy/cache_control.h"
#include "kernels/bins-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

using FloatBits = hn::Repartition<std::int32_t, Doubles>;
using FloatBitsVector = hn::Vec<FloatBits>;
using DoubleMask = hn::Mask<Doubles>;

template <class D, class V>
HWY_INLINE auto promoted_half(D d, V v, int half) {
  const hn::Half<hn::DFromV<V>> dh;
  return half == 0 ? hn::PromoteTo(d, hn::LowerHalf(dh, v)) : hn::PromoteTo(d, hn::UpperHalf(dh, v));
}

/// What a strip's values are like, u_t being the unit of an accumulator's top bin and R_j(v) v rounded to a multiple
/// of u_j. The slices down to bin j add up to R_j(v), whatever the way there.
///
///   coarse  v is less than 2^13 u_t and a multiple of a power of two that is u_{t-1} or more (of x^2: u_{t-2}), as f32
///           values are that are not too small: their last bit counts 2^-23 of the first. Then R_{t-1}(v) = v, and
///           doubles add v exactly; R_t(v), an integer of 13 bits, comes from f32 arithmetic, of twice as many lanes.
///   fine    less than 2^13 u_t, any last bits: the lower bins are rounded.
///   large   up to the end of the top bin, last bits as coarse: R_t(v) in double.
enum class Values { coarse, fine, large };

/// Whether values are such as they were thought to be, and if not, what stands in the way. A misfit does not fit the
/// window at all.
enum class Verdict { fits, too_fine, too_large, misfit };

/// The largest and the smallest magnitude per channel, of f32 bits, whose order is that of the numbers; NaN counts as
/// large. Zeros have no last bit: with 1 taken off they are the largest.
struct Magnitudes {
  using D = hn::Repartition<std::uint32_t, Doubles>;
  hn::Vec<D> largest, smallest;  // smallest minus 1

  HWY_INLINE Magnitudes() : largest(hn::Zero(D())), smallest(hn::Set(D(), 0x7effffffu)) {}

  template <bool kWithSmallest>
  HWY_INLINE void add(FloatVector x) {
    const D d;
    const auto magnitude = hn::And(hn::BitCast(d, x), hn::Set(d, 0x7fffffffu));
    largest = hn::Max(largest, magnitude);
    if (kWithSmallest) smallest = hn::Min(smallest, hn::Sub(magnitude, hn::Set(d, 1)));
  }
  template <bool kWithSmallest>
  HWY_INLINE void add(FloatVector x, FloatVector y) {
    const D d;
    const auto mask = hn::Set(d, 0x7fffffffu);
    const auto a = hn::And(hn::BitCast(d, x), mask);
    const auto b = hn::And(hn::BitCast(d, y), mask);
    largest = hn::Max(largest, hn::Max(a, b));
    const auto one = hn::Set(d, 1);
    if (kWithSmallest) smallest = hn::Min(smallest, hn::Min(hn::Sub(a, one), hn::Sub(b, one)));
  }
  HWY_INLINE Vector largest_of(int half) const {
    return promoted_half(Doubles(), hn::BitCast(Floats(), largest), half);
  }
  /// The power of two at or below the smallest; 0 for subnormal numbers. All values are multiples of 2^-23 of it.
  HWY_INLINE Vector scale_of(int half) const {
    const D d;
    const auto bits = hn::And(hn::Add(smallest, hn::Set(d, 1)), hn::Set(d, 0x7f800000u));
    return promoted_half(Doubles(), hn::BitCast(Floats(), bits), half);
  }
};

/// The magic numbers of one accumulator, by vector of doubles. Windows that are not open have zeros for magic numbers:
/// they take zeros.
struct FloatMagic {
  Vector top[2];              // 1.5 * 2^52 u_t
  FloatVector top_of_floats;  // 1.5 * 2^23 u_t

  HWY_INLINE FloatMagic(const BinColumns& columns, Index c) {
    const Integers d;
    const hn::Half<Floats> dh;
    for (int h = 0; h < 2; ++h) {
      const auto bits = hn::BitCast(d, load(columns.magic + c + h * kWidth));
      const Vector plain = hn::BitCast(Doubles(), hn::Sub(bits, hn::Set(d, kTopHalf)));
      top[h] = hn::IfThenElseZero(hn::Gt(plain, broadcast(0x1p-900)), plain);
    }
    const auto in_floats = [&](int h) HWY_ATTR { return hn::DemoteTo(dh, hn::Mul(top[h], broadcast(0x1p-29))); };
    top_of_floats = hn::Combine(Floats(), in_floats(1), in_floats(0));
  }
  HWY_INLINE Vector second(int h) const { return hn::Mul(top[h], broadcast(kNextBin)); }
  HWY_INLINE Vector third(int h) const { return hn::Mul(second(h), broadcast(kNextBin)); }
  HWY_INLINE Vector unit(int h) const {
    const Integers d;
    const auto exponent = hn::And(hn::BitCast(d, top[h]), hn::Set(d, std::int64_t{0x7ff} << 52));
    return hn::Mul(hn::BitCast(Doubles(), exponent), broadcast(0x1p-52));
  }

  /// May values up to `largest` in magnitude, with at most 50 bits, be taken for kValues? (Those that reach the end of
  /// the top bin itself are left to VectorBins.)
  template <Values kValues>
  HWY_INLINE Verdict range_verdict(int h, Vector largest) const {
    const Doubles d;
    constexpr double kEndOfTop = 0x1.8p17;                                    // 1.5 * 2^52 u_t over 2^35 u_t
    constexpr double kEnd = kValues == Values::large ? kEndOfTop : 0x1.8p39;  // over 2^13 u_t
    constexpr double kLeast = kValues == Values::large ? 0x1p-800 : 0x1.8p-97;
    constexpr double kMost = kValues == Values::large ? 0x1p900 : 0x1.8p156;
    if (!hn::AllTrue(d, hn::Le(hn::Mul(largest, broadcast(kEndOfTop)), top[h]))) return Verdict::misfit;
    const auto is_inside = hn::Lt(hn::Mul(largest, broadcast(kEnd)), hn::Mul(top[h], broadcast(1.0 - 0x1p-35)));
    const auto is_normal = hn::And(hn::Ge(top[h], broadcast(kLeast)), hn::Le(top[h], broadcast(kMost)));
    const auto is_taken = hn::Or(hn::And(is_inside, is_normal), hn::Eq(largest, hn::Zero(d)));
    return hn::AllTrue(d, is_taken) ? Verdict::fits : Verdict::too_large;
  }
};

/// A sum of bit patterns without the magic number's, `rows` times: its low 51 bits are 0.
HWY_INLINE IntegerVector without_magic(IntegerVector sum, Vector magic, Index rows) {
  const hn::Repartition<std::uint32_t, Doubles> d32;
  const hn::Repartition<std::uint64_t, Doubles> d64;
  const auto high = hn::BitCast(d32, hn::ShiftRight<51>(hn::BitCast(d64, magic)));
  const auto product = hn::MulEven(high, hn::Set(d32, static_cast<std::uint32_t>(rows)));
  return hn::Sub(sum, hn::BitCast(Integers(), hn::ShiftLeft<51>(product)));
}
/// v in units, for v less than 2^51 units and a multiple of one.
HWY_INLINE IntegerVector in_units(Vector v, Vector magic) {
  const Integers d;
  return hn::Sub(hn::BitCast(d, hn::Add(v, magic)), hn::BitCast(d, magic));
}

/// What rows of one vector of floats add to three bins: bit patterns in integers, or doubles that add exactly.
template <Values kValues>
struct FloatTerms {
  static constexpr bool kTopInFloats = kValues != Values::large;
  static constexpr bool kFine = kValues == Values::fine;
  FloatBitsVector top_of_floats;
  IntegerVector top[2];     // if large
  IntegerVector second[2];  // of x only if fine
  IntegerVector third[2];   // if fine
  Vector exact[2];          // unless fine: of x the whole, of x^2 the third bin

  HWY_INLINE FloatTerms() : top_of_floats(hn::Zero(FloatBits())) {
    for (int h = 0; h < 2; ++h) {
      top[h] = second[h] = third[h] = hn::Zero(Integers());
      exact[h] = hn::Zero(Doubles());
    }
  }
  HWY_INLINE void add(const FloatTerms& other) {
    top_of_floats = hn::Add(top_of_floats, other.top_of_floats);
    for (int h = 0; h < 2; ++h) {
      top[h] = hn::Add(top[h], other.top[h]);
      second[h] = hn::Add(second[h], other.second[h]);
      third[h] = hn::Add(third[h], other.third[h]);
      exact[h] = hn::Add(exact[h], other.exact[h]);
    }
  }
};

/// The top bin of `rows` rows.
template <Values kValues>
HWY_INLINE IntegerVector top_slices(const FloatTerms<kValues>& sum, const FloatMagic& magic, int h, Index rows) {
  if (!sum.kTopInFloats) return without_magic(sum.top[h], magic.top[h], rows);
  const FloatBits d;
  const auto magic_bits = hn::BitCast(d, magic.top_of_floats);
  const auto taken_off = hn::Mul(magic_bits, hn::Set(d, static_cast<std::int32_t>(rows)));
  return promoted_half(Integers(), hn::Sub(sum.top_of_floats, taken_off), h);
}

/// One vector of floats, as it is and widened.
struct FloatRow {
  FloatVector floats;
  Vector doubles[2];
  HWY_INLINE explicit FloatRow(const float* p) : floats(hn::LoadU(Floats(), p)), doubles{load(p), load(p + kWidth)} {}
  template <class Half>
  HWY_INLINE explicit FloatRow(const Half* p) : floats(load_floats(p)) {
    for (int h = 0; h < 2; ++h) doubles[h] = promoted_half(Doubles(), floats, h);
  }
};

/// Accumulators of f32 values.
template <Values kValues>
struct FloatBins {
  using Terms = FloatTerms<kValues>;
  FloatMagic magic;
  Vector second[2], third[2];  // magic numbers
  Terms sum;

  HWY_INLINE FloatBins(const BinColumns& columns, Index c) : magic(columns, c) {
    for (int h = 0; h < 2; ++h) {
      second[h] = magic.second(h);
      third[h] = magic.third(h);
    }
  }

  HWY_INLINE Terms terms_of(const FloatRow& row) const {
    const Integers d;
    Terms terms;
    if (Terms::kTopInFloats) terms.top_of_floats = hn::BitCast(FloatBits(), hn::Add(row.floats, magic.top_of_floats));
    for (int h = 0; h < 2; ++h) {
      const Vector v = row.doubles[h];
      if (!Terms::kTopInFloats) terms.top[h] = hn::BitCast(d, hn::Add(v, magic.top[h]));
      if (Terms::kFine) {
        const Vector in_second = hn::Add(v, second[h]);
        const Vector rest = hn::Sub(v, hn::Sub(in_second, second[h]));
        terms.second[h] = hn::BitCast(d, in_second);
        terms.third[h] = hn::BitCast(d, hn::Add(rest, third[h]));
      } else {
        terms.exact[h] = v;
      }
    }
    return terms;
  }

  HWY_INLINE Verdict verdict(const Magnitudes& magnitudes, Index rows) const {
    const Doubles d;
    const Vector rows_scaled = broadcast(static_cast<double>(rows) * 0x1p-30);
    for (int h = 0; h < 2; ++h) {
      const Vector largest = magnitudes.largest_of(h);
      const Verdict range = magic.template range_verdict<kValues>(h, largest);
      if (range != Verdict::fits) return range;
      if (Terms::kFine) continue;
      const Vector scale = magnitudes.scale_of(h);
      const auto on_second_bin = hn::Ge(hn::Mul(scale, broadcast(0x1.8p66)), magic.top[h]);  // 2^-14 u_t
      const auto adds_exactly = hn::Le(hn::Mul(largest, rows_scaled), scale);                // 53 - 23 bits
      if (!hn::AllTrue(d, hn::And(on_second_bin, adds_exactly))) return Verdict::too_fine;
    }
    return Verdict::fits;
  }

  HWY_INLINE void slices(int h, Index rows, std::int64_t* out) const {
    const Integers d;
    const IntegerVector first = top_slices(sum, magic, h, rows);
    hn::Store(first, d, out);
    if (Terms::kFine) {
      const auto two = without_magic(sum.second[h], second[h], rows);
      hn::Store(hn::Sub(two, hn::ShiftLeft<kBinBits>(first)), d, out + kStrip);
      hn::Store(without_magic(sum.third[h], third[h], rows), d, out + 2 * kStrip);
    } else {
      const Vector rest = hn::Sub(sum.exact[h], hn::Mul(hn::ConvertTo(Doubles(), first), magic.unit(h)));
      hn::Store(in_units(rest, second[h]), d, out + kStrip);
      hn::Store(hn::Zero(d), d, out + 2 * kStrip);
    }
  }
};

/// Accumulators of the squares of f32 values, which doubles hold exactly, as one fma does their sum with a magic number.
template <Values kValues>
struct SquareBins {
  using Terms = FloatTerms<kValues>;
  FloatMagic magic;
  Vector second[2], third[2];  // magic numbers
  Terms sum;

  HWY_INLINE SquareBins(const BinColumns& columns, Index c) : magic(columns, c) {
    for (int h = 0; h < 2; ++h) {
      second[h] = magic.second(h);
      third[h] = magic.third(h);
    }
  }

  HWY_INLINE Terms terms_of(const FloatRow& row) const {
    const Integers d;
    Terms terms;
    if (Terms::kTopInFloats) {
      terms.top_of_floats = hn::BitCast(FloatBits(), hn::MulAdd(row.floats, row.floats, magic.top_of_floats));
    }
    for (int h = 0; h < 2; ++h) {
      const Vector v = row.doubles[h];
      Vector in_second, rest;
      if (Terms::kTopInFloats) {
        in_second = hn::MulAdd(v, v, second[h]);
        rest = hn::MulSub(v, v, hn::Sub(in_second, second[h]));
      } else {
        const Vector in_top = hn::MulAdd(v, v, magic.top[h]);
        terms.top[h] = hn::BitCast(d, in_top);
        rest = hn::MulSub(v, v, hn::Sub(in_top, magic.top[h]));
        in_second = hn::Add(rest, second[h]);
        rest = hn::Sub(rest, hn::Sub(in_second, second[h]));
      }
      terms.second[h] = hn::BitCast(d, in_second);
      if (Terms::kFine) {
        terms.third[h] = hn::BitCast(d, hn::Add(rest, third[h]));
      } else {
        terms.exact[h] = rest;
      }
    }
    return terms;
  }

  HWY_INLINE Verdict verdict(const Magnitudes& magnitudes) const {
    const Doubles d;
    for (int h = 0; h < 2; ++h) {
      const Vector largest = magnitudes.largest_of(h);
      const Verdict range = magic.template range_verdict<kValues>(h, hn::Mul(largest, largest));
      if (range != Verdict::fits) return range;
      if (Terms::kFine) continue;
      const Vector scale = magnitudes.scale_of(h);
      const auto on_third_bin = hn::Ge(hn::Mul(hn::Mul(scale, scale), broadcast(0x1.8p80)), magic.top[h]);  // 2^-28 u_t
      if (!hn::AllTrue(d, on_third_bin)) return Verdict::too_fine;
    }
    return Verdict::fits;
  }

  HWY_INLINE void slices(int h, Index rows, std::int64_t* out) const {
    const Integers d;
    const IntegerVector first = top_slices(sum, magic, h, rows);
    hn::Store(first, d, out);
    IntegerVector next = without_magic(sum.second[h], second[h], rows);
    if (Terms::kTopInFloats) next = hn::Sub(next, hn::ShiftLeft<kBinBits>(first));  // was R_{t-1}
    hn::Store(next, d, out + kStrip);
    const auto last = Terms::kFine ? without_magic(sum.third[h], third[h], rows) : in_units(sum.exact[h], third[h]);
    hn::Store(last, d, out + 2 * kStrip);
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
