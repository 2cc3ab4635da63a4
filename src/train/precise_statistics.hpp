// SPDX-License-Identifier: MIT
// The statistics that the data really have, layer by layer, in place of running averages.
#pragma once

#include <vector>

#include "arm.hpp"
#include "dataset.hpp"
#include "network.hpp"

namespace syncbn::train {

/// A second network that never trains: with the parameters of one in training it passes over the training data, batch by
/// batch and normalized as in training, and keeps for each batch norm the mean and variance of all that it saw. These are
/// exact (to float) for the layer's inputs; running averages lag behind the weights, and those of a rank's own samples are
/// of these alone.
///
/// Source: Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576, section 3 (PreciseBN).
class PreciseStatistics {
 public:
  /// `images` and `ranks` are borrowed. Collective over the trainers.
  PreciseStatistics(const std::string& network, const LabelledImages& images, const ArmRanks& ranks);

  /// The network with parameters of `trained` and statistics of one pass over the images. `trained` stays as it is.
  ///
  /// @param order  Positions of the images, the same on all ranks; cut into global batches of `batch`, the last may be
  ///               smaller.
  /// Collective over the trainers: batch norm's messages of each batch's forward pass, and two sums per layer at the end
  /// where ranks do not share statistics. With sync the same bits for every number of ranks.
  Network<float>& recalculate(const Network<float>& trained, const std::vector<Index>& order, Index batch);

  /// Fraction of `images`, of the same shape, that the network with parameters of `trained` recognizes in training mode:
  /// shuffled, and cut into global batches that are normalized by their own statistics as in training.
  ///
  /// Collective over the trainers: batch norm's messages of each batch's forward pass, and a sum of one integer.
  double accuracy_in_train_mode(const Network<float>& trained, const LabelledImages& images, Index batch);

 private:
  /// Mean and variance of what one layer saw so far, weighted by samples: Chan, Golub & LeVeque 1983.
  struct Moments {
    double weight = 0;
    std::vector<double> mean;
    std::vector<double> m2;  ///< sum of weight * squared deviation

    void add(double batch_weight, const BatchNorm& layer);
    void merge_over(MPI_Comm comm);
  };

  /// The logits of this rank's samples of a batch, and their share of it in shard_.
  const Tensor<float>& forward(const LabelledImages& images, const Index* samples, Index count);
  void pass_over(const Index* samples, Index count);

  const LabelledImages& images_;
  const ArmRanks& ranks_;
  Network<float> network_;
  std::vector<Moments> moments_;  ///< By layer.
  Tensor<float> x_;
  Shard shard_;
};

}  // namespace syncbn::train
