// SPDX-License-Identifier: MIT
// One step on one global batch: forward, loss, backward, sum of gradients, update.
#pragma once

#include "arm.hpp"
#include "dataset.hpp"
#include "gradient_sum.hpp"
#include "network.hpp"
#include "sgd.hpp"

namespace syncbn::train {

/// A network in training on the ranks of an arm.
class TrainingStep {
 public:
  /// `images`, `ranks` and `network` are borrowed. Local.
  TrainingStep(Network<float>& network, const SgdOptions& options, const LabelledImages& images, const ArmRanks& ranks);

  /// @param samples  The global batch: positions in `images`, the same on all ranks; this rank takes its units of it.
  /// @return         The mean loss over the global batch, before the update, the same on all ranks. If it is not
  /// finite,
  ///                 parameters are left as they were.
  /// Collective over the trainers: batch norm's messages and one all-reduce for all gradients and the loss.
  double operator()(const Index* samples, Index batch, double rate);

 private:
  void load(const Index* samples, const Shard& shard);
  void sum_gradients();
  double loss_sum() const;
  double gradient(std::size_t parameter, Index position) const;

  Network<float>& network_;
  Sgd<float> sgd_;
  const LabelledImages& images_;
  const ArmRanks& ranks_;
  // Of each parameter in sums_. Behind them stand the losses of the units, each a sum of one number and zeros: added
  // up in the order of units, they are the same bits on any number of ranks.
  std::vector<Index> offsets_;
  GradientSum sums_;
  Tensor<float> x_;
  std::vector<std::uint8_t> labels_;
  Tensor<float> dlogits_;
};

}  // namespace syncbn::train
