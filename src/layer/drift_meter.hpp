// SPDX-License-Identifier: MIT
// What a layer with a drift probe does beside its passes.
#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

#include "layer/channel_sums.hpp"
#include "syncbn/batch_norm.hpp"
#include "syncbn/drift_probe.hpp"

namespace syncbn::layer {

/// Compares the rank's own moments, taken from its sums before the message makes them the batch's, with those of the
/// batch. Costs one more finish of the sums, O(C), on calls that the probe wants, and nothing on others.
class DriftMeter {
 public:
  DriftMeter(const BatchNormOptions& options, int rank, int ranks);

  /// Before the message: `body` holds this rank's sums of `own_count` values.
  void begin(ChannelSums& sums, const std::byte* body, Index own_count);
  void start_waiting();
  void stop_waiting();
  /// `cache` has the batch's moments.
  void report(const BatchNormCache& cache);

 private:
  using Clock = std::chrono::steady_clock;
  struct Drift {
    double mean, var, worst;
    Index worst_channel;
  };

  Drift drift_from(const BatchNormCache& cache) const;

  DriftProbe& probe_;
  double eps_;
  DriftRecord record_;
  bool is_wanted_ = false;
  std::vector<double> mean_, mean_lo_, var_;  // this rank's own
  double probe_seconds_ = 0;                  // of the moments
  Clock::time_point begun_, waiting_, done_;
};

}  // namespace syncbn::layer
