// SPDX-License-Identifier: MIT
// How far rank 0's statistics are from the batch's, layer by layer, in a few steps of a training.
#pragma once

#include <vector>

#include "records.hpp"
#include "syncbn/drift_probe.hpp"

namespace syncbn::train {

/// The probe of all layers of a network, on one rank. It takes at most kMostSteps steps, as evenly as it can: none that
/// would bring what taking them has cost, measured, above kMostOfTime of the time of all steps so far. What the first
/// will cost is reckoned from the number of channels, at more than was ever measured. So the clock decides which steps it
/// takes; training does not depend on it.
class DriftSampler final : public DriftProbe {
 public:
  static constexpr double kMostOfTime = 0.01;
  static constexpr Index kMostSteps = 200;

  /// Of a training of `steps` steps.
  explicit DriftSampler(Index steps) : stride_((steps + kMostSteps - 1) / kMostSteps) {}
  /// Of the network's layers, which need the probe before they can be counted. Until then no step is taken.
  void set_layers(Index layers, Index channels);

  /// Before step `step`, from 1.
  void begin_step(Index step);
  /// After it, with the time that it took. The layers in the order of their forward passes; none if it was not taken.
  std::vector<LayerDrift> end_step(double seconds);
  /// What writing down the step that was taken has cost.
  void spend(double seconds);

  bool wants(std::int64_t) const override { return is_taking_; }
  void record(const DriftRecord& record) override;

 private:
  Index stride_;
  Index next_step_ = 1;  // the first that may be taken
  bool is_taking_ = false;
  bool can_take_ = false;
  std::vector<LayerDrift> layers_;  // of the step in work
  Index taken_ = 0;
  double first_seconds_ = 0;  // what the first is reckoned to cost
  double spent_seconds_ = 0;  // on those that were taken
  double step_seconds_ = 0;   // of all steps
};

}  // namespace syncbn::train
