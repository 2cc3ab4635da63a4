// SPDX-License-Identifier: MIT
#include "statistics/running_stats.hpp"

namespace syncbn::statistics {

double weight_of_new_batch(std::optional<double> momentum, Index batches_before) {
  return momentum ? *momentum : 1.0 / static_cast<double>(batches_before + 1);
}

void update_running_stats(const BatchStatistics& batch, double weight, bool unbiased, ChannelVector& running_mean,
                          ChannelVector& running_var) {
  const double count = static_cast<double>(batch.count);
  const bool has_variance = !unbiased || batch.count > 1;
  const double correction = unbiased && batch.count > 1 ? count / (count - 1.0) : 1.0;
  for (Index c = 0; c < running_mean.size(); ++c) {
    running_mean.set(c, (1.0 - weight) * running_mean[c] + weight * batch.mean[c]);
    if (has_variance) running_var.set(c, (1.0 - weight) * running_var[c] + weight * (batch.var[c] * correction));
  }
}

}  // namespace syncbn::statistics
