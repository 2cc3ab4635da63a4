// SPDX-License-Identifier: MIT
// Mean and M2 = sum((x - mean)^2) of many channels that share one count, merged pairwise in double.
#pragma once

#include "syncbn/tensor_view.hpp"

namespace syncbn::statistics {

/// Moments of C channels, stored by the caller: (C) each.
struct MomentsView {
  double* mean;
  double* m2;
};
struct ConstMomentsView {
  const double* mean;
  const double* m2;
};

/// From sums about a value `first` of each channel, over `count` > 0 values: first <- mean = first + d/count, and dd <-
/// M2 = dd - d^2/count, not below 0. d = sum(x - first), dd = sum((x - first)^2).
void moments_from_differences(Index channels, Index count, double* first, const double* d, double* dd);

/// a <- a united with b; both counts may be 0. Symmetric: merging b into a and a into b give the same bits, so that two
/// ranks that exchange their moments agree.
///
///   delta = mean_b - mean_a;  mean = mean_a + delta * n_b/n;  M2 = M2_a + M2_b
///   + delta^2 * n_a*n_b/n
///
/// Equal means give exactly that mean, and M2 is never negative. The base is the side with more values (the smaller
/// mean if equal), which also keeps delta * n_b/n small. Source: Chan, Golub & LeVeque 1983, The American Statistician
/// 37(3), equations 2.1.
void merge_moments(Index channels, Index count_a, MomentsView a, Index count_b, ConstMomentsView b);

/// The mean and biased variance of `count` > 0 values from their moments: var = M2 / count.
void finish_moments(Index channels, Index count, ConstMomentsView moments, double* mean, double* var);

/// invstd = 1 / sqrt(var + eps), and 0 where var + eps = 0: such a channel is constant, and xhat = 0 is its normalized
/// form.
void invstd_of(Index channels, const double* var, double eps, double* invstd);

}  // namespace syncbn::statistics
