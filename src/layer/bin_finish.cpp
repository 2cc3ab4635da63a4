// SPDX-License-Identifier: MIT
#include "layer/bin_finish.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/kernels.hpp"
#include "statistics/exact_moments.hpp"

namespace syncbn::layer {

/// The units of all accumulators' lowest bins, for the kernels: 0 where they must not look.
const double* BinFinish::units_of(const statistics::BinsView& sums) {
  units_.resize(static_cast<std::size_t>(sums.size));
  for (Index i = 0; i < sums.size; ++i) {
    const int exponent = statistics::kBinWidth * (sums.top[i] - (sums.bins - 1));
    const bool is_ordinary =
        sums.top[i] != statistics::kNoWindow && sums.nonfinite[i] == 0 && exponent > -900 && exponent < 800;
    units_[static_cast<std::size_t>(i)] = is_ordinary ? statistics::power_of_two(exponent) : 0.0;
  }
  return units_.data();
}

void BinFinish::moments(const std::byte* block, Index count, DataType type, double* mean, double* mean_lo,
                        double* var) {
  const statistics::BinsView sums = statistics::view_of(block);
  const Index channels = sums.size / 2;
  const kernels::KernelTable& kernel = kernels::table_for(type);
  constexpr double kNotDone = -1.0;
  if (kernel.finish_moments != nullptr) {
    const double* units = units_of(sums);
    kernel.finish_moments({sums.bin, sums.size, units}, {sums.bin + channels, sums.size, units + channels}, channels,
                          static_cast<double>(count), mean, mean_lo, var);
  } else {
    std::fill_n(var, channels, kNotDone);
  }
  for (Index c = 0; c < channels; ++c) {
    if (var[c] != kNotDone) continue;
    const statistics::MeanAndVariance moments = statistics::mean_and_variance(sums, c, channels + c, count);
    mean[c] = moments.mean.hi;
    mean_lo[c] = moments.mean.lo;
    var[c] = moments.var;
  }
}

void BinFinish::gradients(const std::byte* block, DataType type, double* sum_dy, double* sum_dy_xmu) {
  const statistics::BinsView sums = statistics::view_of(block);
  const Index channels = sums.size / 2;
  const kernels::KernelTable& kernel = kernels::table_for(type);
  const double* units = units_of(sums);
  for (const Index first : {Index{0}, channels}) {
    double* sum = first == 0 ? sum_dy : sum_dy_xmu;
    if (kernel.finish_sums != nullptr) {
      kernel.finish_sums({sums.bin + first, sums.size, units + first}, channels, sum);
    } else {
      std::fill_n(sum, channels, std::numeric_limits<double>::quiet_NaN());
    }
    for (Index c = 0; c < channels; ++c) {
      if (std::isnan(sum[c])) sum[c] = statistics::sum_of(sums, first + c).hi;
    }
  }
}

}  // namespace syncbn::layer
