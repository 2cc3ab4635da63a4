// SPDX-License-Identifier: MIT
// How a batch enters the running statistics.
#pragma once

#include <optional>

#include "syncbn/channel_vector.hpp"

namespace syncbn::statistics {

/// The statistics of one batch: (C) each, var biased, over `count` > 0 values.
struct BatchStatistics {
  const double* mean;
  const double* var;
  Index count;
};

/// The weight of the newest batch: momentum, or 1/k for the k-th batch of a cumulative average.
double weight_of_new_batch(std::optional<double> momentum, Index batches_before);

/// running <- (1 - weight) * running + weight * batch, formed in double and rounded once. With `unbiased`, running_var
/// takes var * count/(count-1); for count = 1 that estimate does not exist, and running_var stays as it is.
void update_running_stats(const BatchStatistics& batch, double weight, bool unbiased, ChannelVector& running_mean,
                          ChannelVector& running_var);

}  // namespace syncbn::statistics
