// SPDX-License-Identifier: MIT
// One step on one global batch: forward, loss, backward, sum of gradients, update.
#pragma once

#include "arm.hpp"
#include "dataset.hpp"
#include "gradient_sum.hpp"
#include "network.hpp"
#include "sgd.hpp"
#include "units.hpp"

namespace syncbn::train {

/// A network in training on the ranks of an arm.
class TrainingStep {
 public:
  /// `images`, `ranks` and `network` are borrowed. `note_size`: of notes(). Local.
  TrainingStep(Network<float>& network, const SgdOptions& options, const LabelledImages& images, const ArmRanks& ranks,
               Index note_size);

  /// @param samples  The global batch: positions in `images`, the same on all ranks; this rank takes its units of it.
  /// @return         The mean loss over the global batch, before the update, the same on all ranks. If it is not
  /// finite,
  ///                 parameters are left as they were.
  /// Collective over the trainers: batch norm's messages and one all-gather for all gradients and the loss.
  double operator()(const Index* samples, Index batch, double rate);

  /// Whether this rank wants to stop: told to all with the gradients of the next step.
  void set_stop_wish(bool is_set) noexcept { sums_.set_flag(kStop, is_set); }
  /// Whether any rank did in the last step; the same on all ranks.
  bool is_stop_wished() const noexcept { return sums_.is_flag_set(kStop); }

  /// Whether the step after the next is to be probed (DriftSampler), likewise, and what this rank's probe finds.
  void set_probe_wish(bool is_set) noexcept { sums_.set_flag(kProbe, is_set); }
  bool is_probe_wished() const noexcept { return sums_.is_flag_set(kProbe); }
  float* notes() noexcept { return sums_.notes(); }  ///< (note_size)
  const float* notes_of(Index rank) const noexcept { return sums_.notes_of(rank); }

  Sgd<float>& sgd() noexcept { return sgd_; }

 private:
  static constexpr int kStop = 0;
  static constexpr int kProbe = 1;

  void set_batch(Index batch);
  void load(const Index* samples);
  void gather_gradients();
  double gradient(std::size_t parameter, Index position) const;

  Network<float>& network_;
  Sgd<float> sgd_;
  const LabelledImages& images_;
  const ArmRanks& ranks_;
  Index first_unit_;            // of this rank
  std::vector<Index> offsets_;  // of each parameter in what its scope contributes to sums_
  GradientSum sums_;
  Index batch_ = 0;
  Shard shard_;
  Pass pass_;
  Tensor<float> x_;
  std::vector<std::uint8_t> labels_;
  Tensor<float> dlogits_;
};

}  // namespace syncbn::train
