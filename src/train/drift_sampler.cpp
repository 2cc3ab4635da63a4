// SPDX-License-Identifier: MIT
#include "drift_sampler.hpp"

#include <cmath>
#include <limits>

namespace syncbn::train {

namespace {

/// Root mean square of the numbers that are some; NaN if none is.
class MeanSquare {
 public:
  void add(double value) {
    if (std::isnan(value)) return;
    sum_ += value * value;
    ++count_;
  }
  double root() const { return count_ > 0 ? std::sqrt(sum_ / count_) : std::numeric_limits<double>::quiet_NaN(); }

 private:
  double sum_ = 0;
  int count_ = 0;
};

}  // namespace

void DriftSampler::set_layers(Index layers, Index channels) {
  constexpr double kPerChannel = 0.1e-6;
  constexpr double kPerLayer = 0.5e-6;
  constexpr double kWriting = 10e-6;
  first_seconds_ = kPerChannel * static_cast<double>(channels) + kPerLayer * static_cast<double>(layers) + kWriting;
  can_take_ = layers > 0;
}

bool DriftSampler::wants_step(Index step) {
  const double each = done_ > 0 ? spent_seconds_ / static_cast<double>(done_) : first_seconds_;
  const double seconds = spent_seconds_ + each * static_cast<double>(taken_ - done_ + 1);
  if (!can_take_ || step < next_step_ || seconds > kMostOfTime * step_seconds_) return false;
  next_step_ = step + stride_;
  ++taken_;
  return true;
}

void DriftSampler::begin_step(bool is_taken, float* notes) {
  is_taking_ = is_taken;
  notes_ = notes;
  if (is_taken) layers_.clear();
}

std::vector<LayerDrift> DriftSampler::over_ranks(Index ranks,
                                                 const std::function<const float*(Index rank)>& notes_of) const {
  std::vector<LayerDrift> drifts;
  for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
    MeanSquare mean;
    MeanSquare var;
    for (Index rank = 0; rank < ranks; ++rank) {
      const float* notes = notes_of(rank) + layer * kNotesPerLayer;
      mean.add(notes[0]);
      var.add(notes[1]);
    }
    drifts.push_back({layers_[layer], mean.root(), var.root()});
  }
  return drifts;
}

void DriftSampler::spend(double seconds) {
  if (!is_taking_) return;
  spent_seconds_ += seconds;
  ++done_;
}

void DriftSampler::record(const DriftRecord& record) {
  *notes_++ = static_cast<float>(record.mean_drift);
  *notes_++ = static_cast<float>(record.var_drift);
  layers_.emplace_back(record.layer);
  spent_seconds_ += record.probe_seconds;
}

}  // namespace syncbn::train
