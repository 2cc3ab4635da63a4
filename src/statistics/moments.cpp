// SPDX-License-Identifier: MIT
#include "statistics/moments.hpp"

#include <algorithm>
#include <cmath>

namespace syncbn::statistics {

void moments_from_differences(Index channels, Index count, double* first, const double* d, double* dd) {
  const double total = static_cast<double>(count);
  for (Index c = 0; c < channels; ++c) {
    const double mean_difference = d[c] / total;
    const double m2 = dd[c] - d[c] * mean_difference;
    first[c] += mean_difference;
    dd[c] = m2 < 0.0 ? 0.0 : m2;  // a NaN stays
  }
}

void merge_moments(Index channels, Index count_a, MomentsView a, Index count_b, ConstMomentsView b) {
  if (count_b == 0) return;
  if (count_a == 0) {
    std::copy_n(b.mean, channels, a.mean);
    std::copy_n(b.m2, channels, a.m2);
    return;
  }
  const double total = static_cast<double>(count_a + count_b);
  const double weight_of_smaller = static_cast<double>(std::min(count_a, count_b)) / total;
  const double spread = static_cast<double>(std::max(count_a, count_b)) * weight_of_smaller;  // n_a*n_b/n
  for (Index c = 0; c < channels; ++c) {
    const bool a_is_base = count_a > count_b || (count_a == count_b && a.mean[c] <= b.mean[c]);
    const double base = a_is_base ? a.mean[c] : b.mean[c];
    const double delta = (a_is_base ? b.mean[c] : a.mean[c]) - base;
    a.mean[c] = base + delta * weight_of_smaller;
    a.m2[c] = (a.m2[c] + b.m2[c]) + delta * delta * spread;
  }
}

void finish_moments(Index channels, Index count, ConstMomentsView moments, double* mean, double* var) {
  const double total = static_cast<double>(count);
  for (Index c = 0; c < channels; ++c) {
    mean[c] = moments.mean[c];
    var[c] = moments.m2[c] / total;
  }
}

void invstd_of(Index channels, const double* var, double eps, double* invstd) {
  for (Index c = 0; c < channels; ++c) {
    const double shifted = var[c] + eps;
    invstd[c] = shifted == 0.0 ? 0.0 : 1.0 / std::sqrt(shifted);
  }
}

}  // namespace syncbn::statistics
