// SPDX-License-Identifier: MIT
// How far the ranks' own statistics are from the batch's, layer by layer, in a few steps of a training.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "records.hpp"
#include "syncbn/drift_probe.hpp"

namespace syncbn::train {

/// The probe of all layers of a network, on each rank. Rank 0 decides which steps are taken, and tells the others with the
/// gradients of the step before; what the probes find travels with the gradients of the step itself. It takes at most
/// kMostSteps steps, as evenly as it can: none that would bring what taking them has cost rank 0, measured, above kMostOfTime
/// of the time of all steps so far. What the first will cost is reckoned from the number of channels, at more than was ever
/// measured. So the clock decides which steps it takes; training does not depend on it.
class DriftSampler final : public DriftProbe {
 public:
  static constexpr double kMostOfTime = 0.01;
  static constexpr Index kMostSteps = 200;
  static constexpr Index kNotesPerLayer = 2;

  /// Of a training of `steps` steps.
  explicit DriftSampler(Index steps) : stride_((steps + kMostSteps - 1) / kMostSteps) {}
  /// Of the network's layers, which need the probe before they can be counted. Until then no step is taken.
  void set_layers(Index layers, Index channels);

  /// On rank 0, once before the gradients of each step: whether the next one, `step`, is to be taken.
  bool wants_step(Index step);
  /// Before a step. What the layers find, in the order of their forward passes, goes to `notes`, (layers * kNotesPerLayer).
  void begin_step(bool is_taken, float* notes);
  /// After a step that was taken, from the notes of all ranks.
  std::vector<LayerDrift> over_ranks(Index ranks, const std::function<const float*(Index rank)>& notes_of) const;
  /// After each step, with the time that it took.
  void end_step(double seconds) { step_seconds_ += seconds; }
  /// What writing down the step that was taken has cost.
  void spend(double seconds);

  bool wants(std::int64_t) const override { return is_taking_; }
  void record(const DriftRecord& record) override;

 private:
  Index stride_;
  Index next_step_ = 1;  // the first that may be taken
  bool is_taking_ = false;
  bool can_take_ = false;
  float* notes_ = nullptr;           // of the step in work
  std::vector<std::string> layers_;  // of the last step that was taken
  Index taken_ = 0;                  // or to be taken next
  Index done_ = 0;
  double first_seconds_ = 0;  // what the first is reckoned to cost
  double spent_seconds_ = 0;  // on those that are done
  double step_seconds_ = 0;   // of all steps
};

}  // namespace syncbn::train
