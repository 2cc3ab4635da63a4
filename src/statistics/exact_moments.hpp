// SPDX-License-Identifier: MIT
// Mean and variance from the exact sums of x and x^2.
#pragma once

#include "statistics/bins.hpp"

namespace syncbn::statistics {

struct MeanAndVariance {
  DoubleDouble mean;
  double var;  ///< Biased.
};

/// Of `count` > 0 values whose sum is accumulator i of `sums` and whose sum of squares is accumulator j.
///
///   mean = S1/M,   var = Q/M - mean^2
///
/// in double-double, which leaves an error of about 2^-100 * Q/M. Where that difference has lost 40 bits or more
/// (|mean|/sigma above 10^6, or a constant channel), M*Q - S1^2 is formed in integers instead, without any error: a
/// constant channel has variance 0. What rounding in the deposits left negative is 0.
MeanAndVariance mean_and_variance(const BinsView& sums, Index i, Index j, Index count);

}  // namespace syncbn::statistics
