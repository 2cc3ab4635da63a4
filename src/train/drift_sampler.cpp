// SPDX-License-Identifier: MIT
#include "drift_sampler.hpp"

#include <utility>

namespace syncbn::train {

void DriftSampler::set_layers(Index layers, Index channels) {
  constexpr double kPerChannel = 0.1e-6;
  constexpr double kPerLayer = 0.5e-6;
  constexpr double kWriting = 10e-6;
  first_seconds_ = kPerChannel * static_cast<double>(channels) + kPerLayer * static_cast<double>(layers) + kWriting;
  can_take_ = layers > 0;
}

void DriftSampler::begin_step(Index step) {
  const double next_seconds = taken_ > 0 ? spent_seconds_ / static_cast<double>(taken_) : first_seconds_;
  is_taking_ = can_take_ && step >= next_step_ && spent_seconds_ + next_seconds <= kMostOfTime * step_seconds_;
  if (!is_taking_) return;
  next_step_ = step + stride_;
  ++taken_;
}

std::vector<LayerDrift> DriftSampler::end_step(double seconds) {
  step_seconds_ += seconds;
  return std::exchange(layers_, {});
}

void DriftSampler::spend(double seconds) {
  if (is_taking_) spent_seconds_ += seconds;
}

void DriftSampler::record(const DriftRecord& record) {
  layers_.push_back({std::string(record.layer), record.mean_drift});
  spent_seconds_ += record.probe_seconds;
}

}  // namespace syncbn::train
