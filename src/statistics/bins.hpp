// SPDX-License-Identifier: MIT
// Binned accumulators: sums of doubles whose result is a function of the set of values, not of their order or grouping.
//
// The real line is cut at fixed places into bins of kBinWidth bits: bin j counts in units of u_j = 2^(kBinWidth*j). A
// value is cut from the top: its slice in bin j is what remains of it, rounded to the nearest multiple of u_j (ties to
// even), and the rest goes on to bin j-1. An accumulator keeps the `bins` topmost bins that its largest value needs:
// its window, named by its top bin. Each bin is a 64-bit integer, so all additions are exact.
//
// Why order does not matter. Let t be the window's top and b its lowest bin.
//  (1) The slices of v down to bin j add up to v rounded to a multiple of u_j (ties to even), whatever bin above v's own
//      the cutting begins at: those bins get nothing. For a value needs top t only if it is at least nearly u_t/4; so
//      what fits bin t-1 is about u_t/4 at most, and rounds to 0 units of bin t. And u_{j+1}/u_j is even, so a tie falls
//      alike when v is rounded to u_{j+1} first. (A top bin that took values up to u_{t+1}/2 would not do: rounding
//      decides at the end of its range, and -(2^(kBinWidth-1) + 1/4) u_t would round to a number that fits, yet be -1
//      unit of the bin above for an accumulator that has that bin.)
//  (2) Hence an accumulator whose window is [t, b] holds, bin by bin from the top, sums that add up to
//      sum_i round(v_i; u_b). When a larger value moves the window up by one, bin b is dropped, and by (1) what is left
//      is sum_i round(v_i; u_{b+1}), bin by bin: the same as if the window had been there from the start.
//  (3) t is the highest of the tops that the single values need (zeros need none), so it depends on the set. So the
//      result, sum_i round(v_i; u_b) with b = t - bins + 1, depends on the set alone. Merging aligns two windows by (2)
//      and adds integers.
//
// Bins must not be carried into each other before the end: a carry out of a bin that is dropped later would stay behind.
//
// Error: a value loses at most u_b/2. The value v that needed top t has |v| >= (1 - 2^-36) * u_t/4, and
// u_b/2 = u_t/2 * 2^-(kBinWidth * (bins-1)): for each deposit, less than 2^-72 |v| with three bins, 2^-146 |v| with five.
//
// Source: Demmel & Nguyen 2015, "Parallel Reproducible Summation", IEEE Trans. Computers 64(7); Ahrens, Demmel & Nguyen
// 2020, ACM TOMS 46(3). Here the bins are integers instead of floating-point numbers with a bias, which makes room for
// 2^26 values before any bin can overflow and needs no carry bins.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "statistics/double_double.hpp"
#include "statistics/wide_integer.hpp"
#include "syncbn/tensor_view.hpp"

namespace syncbn::statistics {

inline constexpr int kBinWidth = 37;                  ///< Bits per bin.
inline constexpr int kMaxBins = 5;                    ///< Bins in a window, at most.
inline constexpr std::int16_t kNoWindow = INT16_MIN;  ///< Top of an accumulator that has seen zeros only.

inline constexpr int kNoTop = INT16_MAX;

/// What a top bin takes: n units, n in [-kTopHalf, kTopHalf). (Not symmetric: so one pass over the bits can check it.)
inline constexpr std::int64_t kTopHalf = std::int64_t{1} << (kBinWidth - 2);

/// A slice is at most 2^36 units in magnitude, so 2^26 of them stay within 2^62.
inline constexpr std::int64_t kMaxDeposits = std::int64_t{1} << 26;

/// Values that are not finite are not cut but remembered, as a set of these.
enum NonFinite : std::uint8_t { kHasNan = 1, kHasPlusInfinity = 2, kHasMinusInfinity = 4 };

/// The lowest top bin that takes `value`, finite and not 0: the lowest t with round(value / u_t) in [-kTopHalf,
/// kTopHalf).
int top_for(double value);

/// The lowest top bin for values of this magnitude, >= 0, of either sign: kNoWindow for 0, kNoTop for infinity and NaN
/// and where their sign decides, which happens at the ends of a bin's range only.
inline int top_for_both_signs(double magnitude);

/// What top_for_both_signs says of all `count` > 0 magnitudes, if it is quick to see that it says the same top bin; else
/// kNoTop.
int common_top_for_both_signs(const double* magnitude, Index count);

/// `size` accumulators with `bins` bins each, in memory that somebody else owns. Bin k (0 = top) of accumulator i is
/// bin[k * size + i].
struct BinsView {
  Index size;
  int bins;
  std::int64_t* bin;        // (bins, size)
  std::int16_t* top;        // (size)
  std::uint8_t* nonfinite;  // (size) sets of NonFinite
};

/// All accumulators <- the empty set.
void clear_bins(const BinsView& view);

namespace bins_detail {

/// |value| < 2^above * kTopHalf, and the lowest top bin by that alone.
struct TopByExponent {
  int above;
  int top;
  /// From a normal double's exponent, biased as its bits are.
  explicit TopByExponent(int biased_exponent) : above(biased_exponent - 1022 - (kBinWidth - 2)) {
    constexpr int kShift = 64;  // makes the dividend positive
    top = static_cast<int>(static_cast<unsigned>(above + kBinWidth * kShift + kBinWidth - 1) / kBinWidth) - kShift;
  }
  // At the ends of a bin's range rounding decides: up to kTopHalf is one too many, down to -kTopHalf still fits.
  bool is_just_inside() const { return above == kBinWidth * top; }
  bool is_just_outside() const { return above == kBinWidth * (top - 1) + 1; }
};

/// Of a double >= 0, from its bits: TopByExponent, and whether that alone does not tell the top for both signs.
struct TopForBothSigns {
  int top;
  bool is_rare;
  explicit TopForBothSigns(std::uint64_t bits) {
    const auto biased_exponent = static_cast<int>(bits >> 52);
    const std::uint64_t fraction = bits & ((std::uint64_t{1} << 52) - 1);
    const TopByExponent guess(biased_exponent);
    top = guess.top;
    // Within half a unit of the end of the range, of 2^(kBinWidth-2) units.
    constexpr std::uint64_t kHalfUnit = std::uint64_t{1} << (52 - (kBinWidth - 1));
    is_rare = biased_exponent == 0 || biased_exponent == 0x7ff ||
              (guess.is_just_inside() && fraction >= (std::uint64_t{1} << 52) - 2 * kHalfUnit) ||
              (guess.is_just_outside() && fraction <= kHalfUnit);
  }
};

int top_for_rare_magnitude(double magnitude);

}  // namespace bins_detail

inline int top_for_both_signs(double magnitude) {
  std::uint64_t bits;
  std::memcpy(&bits, &magnitude, sizeof bits);
  const bins_detail::TopForBothSigns guess(bits);
  return guess.is_rare ? bins_detail::top_for_rare_magnitude(magnitude) : guess.top;
}

/// Moves the window of accumulator i up so that its top is at least `top`. A lower `top` changes nothing.
inline void raise_window(const BinsView& view, Index i, int top);

inline void raise_window(const BinsView& view, Index i, int top) {
  const int now = view.top[i];
  if (top <= now) return;
  const int steps = now == kNoWindow ? view.bins : std::min(top - now, view.bins);
  std::int64_t* bin = view.bin + i;
  for (int k = view.bins - 1; k >= steps; --k) bin[k * view.size] = bin[(k - steps) * view.size];
  for (int k = 0; k < steps; ++k) bin[k * view.size] = 0;
  view.top[i] = static_cast<std::int16_t>(top);
}

/// Adds one value to accumulator i.
void deposit(const BinsView& view, Index i, double value);

/// a <- a united with b. Commutative and associative, exactly. Same size and bins.
void merge_bins(const BinsView& a, const BinsView& b);

/// integer * 2^scale
struct ExactSum {
  WideInteger integer;
  int scale = 0;
  DoubleDouble to_double_double() const { return integer.to_double_double(scale); }
};

/// What accumulator i holds, exactly, its bins carried through: one total has one form. Non-finite values do not count.
ExactSum exact_sum_of(const BinsView& view, Index i);

/// The sum in accumulator i as an unevaluated pair: hi is the sum rounded to the nearest double, lo the rest, rounded.
/// A function of the set of values. NaN if a NaN or both infinities were added.
DoubleDouble sum_of(const BinsView& view, Index i);

/// hi + lo rounded once to f32, ties to even.
float round_to_float(DoubleDouble value);

}  // namespace syncbn::statistics
