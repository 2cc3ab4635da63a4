// SPDX-License-Identifier: MIT
#include "layer/drift_meter.hpp"

#include <cmath>
#include <limits>

namespace syncbn::layer {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

}  // namespace

DriftMeter::DriftMeter(const BatchNormOptions& options, int rank, int ranks)
    : probe_(*options.drift_probe),
      eps_(options.eps),
      mean_(static_cast<std::size_t>(options.num_features)),
      mean_lo_(mean_.size()),
      var_(mean_.size()) {
  record_.layer = options.name;
  record_.rank = rank;
  record_.ranks = ranks;
}

void DriftMeter::begin(ChannelSums& sums, const std::byte* body, Index own_count) {
  is_wanted_ = probe_.wants(++record_.call);
  if (!is_wanted_) return;
  const Clock::time_point start = Clock::now();
  record_.own_count = own_count;
  if (own_count > 0) sums.finish_moments(body, own_count, mean_.data(), mean_lo_.data(), var_.data());
  begun_ = Clock::now();
  probe_seconds_ = std::chrono::duration<double>(begun_ - start).count();
}

void DriftMeter::start_waiting() {
  if (is_wanted_) waiting_ = Clock::now();
}

void DriftMeter::stop_waiting() {
  if (is_wanted_) done_ = Clock::now();
}

DriftMeter::Drift DriftMeter::drift_from(const BatchNormCache& cache) const {
  if (record_.own_count == 0) return {kUnknown, kUnknown, kUnknown, 0};
  double mean_squares = 0;
  double var_squares = 0;
  Drift drift{0, 0, 0, 0};
  for (std::size_t c = 0; c < mean_.size(); ++c) {
    const double spread = cache.var[c] + eps_;
    // Without spread and without eps all of a channel's values are equal, here and elsewhere.
    const double of_mean = spread == 0 ? 0 : (mean_[c] - cache.mean[c]) / std::sqrt(spread);
    const double of_var = spread == 0 ? 0 : (var_[c] - cache.var[c]) / spread;
    mean_squares += of_mean * of_mean;
    var_squares += of_var * of_var;
    if (std::abs(of_mean) > std::abs(drift.worst)) {
      drift.worst = of_mean;
      drift.worst_channel = static_cast<Index>(c);
    }
  }
  const auto channels = static_cast<double>(mean_.size());
  drift.mean = std::sqrt(mean_squares / channels);
  drift.var = std::sqrt(var_squares / channels);
  return drift;
}

void DriftMeter::report(const BatchNormCache& cache) {
  if (!is_wanted_) return;
  const Clock::time_point start = Clock::now();
  const Drift drift = drift_from(cache);
  record_.count = cache.count;
  record_.mean_drift = drift.mean;
  record_.var_drift = drift.var;
  record_.worst_channel = drift.worst_channel;
  record_.worst_mean_drift = drift.worst;
  record_.message_seconds = std::chrono::duration<double>(done_ - begun_).count();
  record_.wait_seconds = std::chrono::duration<double>(done_ - waiting_).count();
  record_.probe_seconds = probe_seconds_ + std::chrono::duration<double>(Clock::now() - start).count();
  probe_.record(record_);
}

}  // namespace syncbn::layer
