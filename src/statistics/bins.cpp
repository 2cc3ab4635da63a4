// SPDX-License-Identifier: MIT
#include "statistics/bins.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace syncbn::statistics {
namespace {

constexpr int kDoubleDigits = 53;

std::int64_t& bin_of(const BinsView& view, int k, Index i) { return view.bin[static_cast<Index>(k) * view.size + i]; }

/// A finite double as significand * 2^exponent, |significand| < 2^53.
struct Decoded {
  std::int64_t significand;
  int exponent;
};

Decoded decode(double value) {
  int exponent = 0;
  const double fraction = std::frexp(value,
                                     &exponent);  // value = fraction * 2^exponent, |fraction| in [1/2, 1)
  return {static_cast<std::int64_t>(std::ldexp(fraction, kDoubleDigits)), exponent - kDoubleDigits};
}

/// As a normal double's exponent field has it.
int biased_exponent_of(double value) {
  std::uint64_t bits;
  static_assert(sizeof bits == sizeof value);
  std::memcpy(&bits, &value, sizeof bits);
  const int biased = static_cast<int>(bits >> 52 & 0x7ff);
  return biased != 0 ? biased : std::ilogb(value) + 1023;
}

/// n / 2^shift rounded to the nearest integer, ties to even; shift > 0.
std::int64_t shift_right_rounded(std::int64_t n, int shift) {
  if (shift > 62) return 0;  // |n| < 2^54: less than half
  const std::int64_t floor = n >> shift;
  const std::int64_t rest = n - (floor << shift);
  const std::int64_t half = std::int64_t{1} << (shift - 1);
  return floor + (rest > half || (rest == half && (floor & 1) != 0) ? 1 : 0);
}

/// Rounded n in value = n * u_bin.
std::int64_t units_of(const Decoded& value, int bin) {
  const int shift = kBinWidth * bin - value.exponent;
  return shift > 0 ? shift_right_rounded(value.significand, shift) : value.significand << -shift;
}

double non_finite_sum(std::uint8_t seen) {
  const bool both_infinities = (seen & kHasPlusInfinity) != 0 && (seen & kHasMinusInfinity) != 0;
  if ((seen & kHasNan) != 0 || both_infinities) return std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  return (seen & kHasPlusInfinity) != 0 ? infinity : -infinity;
}

std::uint8_t non_finite_kind(double value) {
  if (std::isnan(value)) return kHasNan;
  return value > 0 ? kHasPlusInfinity : kHasMinusInfinity;
}

}  // namespace

int top_for(double value) {
  const bins_detail::TopByExponent guess(biased_exponent_of(value));
  if (guess.is_just_inside() && units_of(decode(value), guess.top) == kTopHalf) return guess.top + 1;
  if (guess.is_just_outside() && units_of(decode(value), guess.top - 1) == -kTopHalf) return guess.top - 1;
  return guess.top;
}

int bins_detail::top_for_rare_magnitude(double magnitude) {
  if (magnitude == 0.0) return kNoWindow;
  if (!std::isfinite(magnitude)) return kNoTop;
  const int top = top_for(magnitude);
  return top == top_for(-magnitude) ? top : kNoTop;
}

int common_top_for_both_signs(const double* magnitude, Index count) {
  std::uint64_t least = UINT64_MAX, most = 0;
  for (Index i = 0; i < count; ++i) {
    std::uint64_t bits;
    std::memcpy(&bits, magnitude + i, sizeof bits);
    least = std::min(least, bits);
    most = std::max(most, bits);
  }
  const bins_detail::TopForBothSigns low(least), high(most);
  return low.top == high.top && !low.is_rare && !high.is_rare ? low.top : kNoTop;
}

void clear_bins(const BinsView& view) {
  std::fill_n(view.bin, view.size * view.bins, 0);
  std::fill_n(view.top, view.size, kNoWindow);
  std::fill_n(view.nonfinite, view.size, std::uint8_t{0});
}

void deposit(const BinsView& view, Index i, double value) {
  if (!std::isfinite(value)) {
    view.nonfinite[i] |= non_finite_kind(value);
    return;
  }
  if (value == 0.0) return;
  raise_window(view, i, top_for(value));
  auto [rest, exponent] = decode(value);
  for (int k = 0; k < view.bins && rest != 0; ++k) {
    const int shift = kBinWidth * (view.top[i] - k) - exponent;  // bin's unit over the significand's
    if (shift <= 0) {
      bin_of(view, k, i) += rest << -shift;
      return;
    }
    const std::int64_t slice = shift_right_rounded(rest, shift);
    bin_of(view, k, i) += slice;
    if (slice != 0) rest -= slice << shift;
  }
}

namespace {

/// a + b; wraps, defined, if there are too many deposits: that is found out later.
std::int64_t wrapping_sum(std::int64_t a, std::int64_t b) {
  return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
}

void merge_one(const BinsView& to, const BinsView& from, Index i) {
  to.nonfinite[i] |= from.nonfinite[i];
  if (from.top[i] == kNoWindow) return;
  raise_window(to, i, from.top[i]);
  const int lag = to.top[i] - from.top[i];
  for (int k = lag; k < to.bins; ++k) {
    std::int64_t& bin = bin_of(to, k, i);
    bin = wrapping_sum(bin, bin_of(from, k - lag, i));
  }
}

/// Accumulators [begin, end) whose windows are the same on both sides, or closed: their bins are zero.
void merge_aligned(const BinsView& a, const BinsView& b, Index begin, Index end) {
  for (int k = 0; k < a.bins; ++k) {
    std::int64_t* to = a.bin + k * a.size;
    const std::int64_t* from = b.bin + k * b.size;
    for (Index i = begin; i < end; ++i) to[i] = wrapping_sum(to[i], from[i]);
  }
  for (Index i = begin; i < end; ++i) a.nonfinite[i] |= b.nonfinite[i];
}

}  // namespace

void merge_bins(const BinsView& a, const BinsView& b) {
  constexpr Index kBlock = 64;
  for (Index begin = 0; begin < a.size; begin += kBlock) {
    const Index end = std::min(begin + kBlock, a.size);
    if (std::equal(a.top + begin, a.top + end, b.top + begin)) {  // as it is where ranks have data alike
      merge_aligned(a, b, begin, end);
    } else {
      for (Index i = begin; i < end; ++i) merge_one(a, b, i);
    }
  }
}

ExactSum exact_sum_of(const BinsView& view, Index i) {
  ExactSum sum;
  if (view.top[i] == kNoWindow) return sum;
  for (int k = 0; k < view.bins; ++k) {
    sum.integer <<= kBinWidth;
    sum.integer += WideInteger(bin_of(view, k, i));
  }
  sum.scale = kBinWidth * (view.top[i] - (view.bins - 1));
  return sum;
}

DoubleDouble sum_of(const BinsView& view, Index i) {
  if (view.nonfinite[i] != 0) return {non_finite_sum(view.nonfinite[i]), 0.0};
  return exact_sum_of(view, i).to_double_double();
}

float round_to_float(DoubleDouble value) {
  const double hi = value.hi;
  if (value.lo == 0.0 || !std::isfinite(hi)) return static_cast<float>(hi);
  // Round hi + lo to odd in double first: with two or more spare bits the second rounding is then the only one.
  std::int64_t bits;
  static_assert(sizeof bits == sizeof hi);
  std::memcpy(&bits, &hi, sizeof bits);
  const bool away = (value.lo > 0.0) == (hi > 0.0);
  if ((bits & 1) == 0) bits += away ? 1 : -1;
  double odd;
  std::memcpy(&odd, &bits, sizeof odd);
  return static_cast<float>(odd);
}

}  // namespace syncbn::statistics
