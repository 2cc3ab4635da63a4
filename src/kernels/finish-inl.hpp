// SPDX-License-Identifier: MIT
// From binned sums to mean and variance, a vector of channels at a time. Included once per target.
#if defined(SYNCBN_KERNELS_FINISH_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_FINISH_INL
#undef SYNCBN_KERNELS_FINISH_INL
#else
#define SYNCBN_KERNELS_FINISH_INL
#endif

#include <cstring>
#include <limits>

#include "kernels/sums-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

/// Vectors of statistics::DoubleDouble, with the same operations in the same order.
struct Pairs {
  Vector hi, lo;
};

HWY_INLINE Pairs fast_two_sum_of(Vector a, Vector b) {
  const Vector s = hn::Add(a, b);
  return {s, hn::Sub(b, hn::Sub(s, a))};
}

HWY_INLINE Pairs add_pairs(Pairs a, Pairs b) {
  Vector se, te;
  const Vector s = MomentPairRow::two_sum_of(a.hi, b.hi, se);
  const Vector t = MomentPairRow::two_sum_of(a.lo, b.lo, te);
  const Pairs v = fast_two_sum_of(s, hn::Add(se, t));
  return fast_two_sum_of(v.hi, hn::Add(te, v.lo));
}

HWY_INLINE Pairs square_of(Pairs a) {
  Vector pe;
  const Vector p = MomentPairRow::two_product_of(a.hi, a.hi, pe);
  const Vector cross = hn::MulAdd(a.hi, a.lo, hn::Add(hn::Mul(a.lo, a.hi), hn::Mul(a.lo, a.lo)));
  return fast_two_sum_of(p, hn::Add(pe, cross));
}

HWY_INLINE Pairs divided(Pairs a, Vector b) {
  const Vector q = hn::Div(a.hi, b);
  const Vector rest = hn::NegMulAdd(q, b, a.hi);
  return fast_two_sum_of(q, hn::Div(hn::Add(rest, a.lo), b));
}

/// The first n bins; the others are 0 and their memory is not touched.
HWY_INLINE IntegerVector load_first(const std::int64_t* p, Index n) {
#if HWY_ARCH_X86
  return hn::MaskedLoad(hn::FirstN(Integers(), static_cast<size_t>(n)), Integers(), p);
#else
  std::int64_t padded[kWidth] = {};
  std::memcpy(padded, p, static_cast<size_t>(n) * sizeof *p);
  return hn::LoadU(Integers(), padded);
#endif
}

/// The three bins of a vector of channels as one pair, hi rounded to nearest and lo the rest. `exact` loses the lanes
/// where that does not hold the whole sum, or where a bin is longer than a double.
template <class Mask>
HWY_INLINE Pairs sum_of_bins(const BinSums& sums, Index c, First access, Mask& exact) {
  const Doubles d;
  const Vector unit = access.get(sums.unit + c);
  Vector scale = unit;
  Vector part[3];
  for (int k = 2; k >= 0; --k) {
    const Vector value = hn::ConvertTo(d, load_first(sums.bin + k * sums.stride + c, access.n));
    exact = hn::And(exact, hn::Lt(hn::Abs(value), broadcast(0x1p53)));
    part[k] = hn::Mul(value, scale);
    scale = hn::Mul(scale, broadcast(1.0 / kNextBin));
  }
  Vector lower_error, upper_error, rest_error;
  const Vector lower = MomentPairRow::two_sum_of(part[1], part[2], lower_error);
  const Vector upper = MomentPairRow::two_sum_of(part[0], lower, upper_error);
  const Vector rest = MomentPairRow::two_sum_of(upper_error, lower_error, rest_error);
  exact = hn::And(exact, hn::And(hn::Eq(rest_error, hn::Zero(d)), hn::Ne(unit, hn::Zero(d))));
  return fast_two_sum_of(upper, rest);
}

/// statistics::mean_and_variance, but for its last resort.
inline void finish_moments(BinSums sums, BinSums squares, Index channels, double count, double* mean_hi,
                           double* mean_lo, double* var) {
  const Vector m = broadcast(count);
  for (Index c = 0; c < channels; c += kWidth) {
    const First access{std::min(kWidth, channels - c)};
    auto exact = hn::Eq(m, m);
    const Pairs mean = divided(sum_of_bins(sums, c, access, exact), m);
    const Pairs mean_square = divided(sum_of_bins(squares, c, access, exact), m);
    const Pairs square = square_of(mean);
    const Vector variance = add_pairs(mean_square, {hn::Neg(square.hi), hn::Neg(square.lo)}).hi;
    const auto is_enough = hn::And(exact, hn::Gt(variance, hn::Mul(broadcast(0x1p-40), mean_square.hi)));
    access.put(mean.hi, mean_hi + c);
    access.put(mean.lo, mean_lo + c);
    access.put(hn::IfThenElse(is_enough, variance, broadcast(-1.0)), var + c);
  }
}

inline void finish_sums(BinSums sums, Index channels, double* sum) {
  const Vector nan = broadcast(std::numeric_limits<double>::quiet_NaN());
  for (Index c = 0; c < channels; c += kWidth) {
    const First access{std::min(kWidth, channels - c)};
    auto exact = hn::Eq(hn::Zero(Doubles()), hn::Zero(Doubles()));
    const Pairs total = sum_of_bins(sums, c, access, exact);
    access.put(hn::IfThenElse(exact, total.hi, nan), sum + c);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
