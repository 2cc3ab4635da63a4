// SPDX-License-Identifier: MIT
#include "statistics/exact_moments.hpp"

#include <cmath>
#include <cstdlib>
#include <limits>

namespace syncbn::statistics {
namespace {

/// (M*Q - S1^2) / M^2
double exact_variance(const ExactSum& sum, const ExactSum& squares, Index count) {
  WideInteger first = squares.integer;
  first *= static_cast<std::uint64_t>(count);
  WideInteger second = sum.integer.squared();
  const int lag = 2 * sum.scale - squares.scale;
  WideInteger& coarser = lag > 0 ? second : first;
  // The two agree to 40 bits, so the coarser one becomes as long as the other, 422 bits at most; unless both are 0.
  if (coarser.bit_length() + std::abs(lag) > WideInteger::kBits) return 0.0;
  coarser <<= std::abs(lag);
  first -= second;
  if (first.is_negative()) return 0.0;
  const double m = static_cast<double>(count);
  const DoubleDouble difference = first.to_double_double(lag > 0 ? squares.scale : 2 * sum.scale);
  return (difference / m / m).hi;
}

}  // namespace

MeanAndVariance mean_and_variance(const BinsView& sums, Index i, Index j, Index count) {
  const double m = static_cast<double>(count);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  if (sums.nonfinite[i] != 0) return {{nan, 0.0}, nan};
  const ExactSum sum = exact_sum_of(sums, i);
  if (sums.nonfinite[j] != 0) return {sum.to_double_double() / m, nan};  // only the squares overflowed
  const ExactSum squares = exact_sum_of(sums, j);
  const DoubleDouble mean = sum.to_double_double() / m;
  const DoubleDouble mean_square = squares.to_double_double() / m;
  const double var = (mean_square - mean * mean).hi;
  constexpr double kLost = 0x1p-40;
  if (var > kLost * mean_square.hi) return {mean, var};
  return {mean, exact_variance(sum, squares, count)};
}

}  // namespace syncbn::statistics
