// SPDX-License-Identifier: MIT
// How well a network does on test images, by whose statistics.
#pragma once

#include <optional>

#include "precise_statistics.hpp"
#include "records.hpp"

namespace syncbn::train {

/// Gives all trainers the running statistics of rank 0: they differ where batch norm does not see the whole batch, and
/// the network that is evaluated, hashed and kept must be one. Training itself never reads them. Collective.
void share_running_stats(Network<float>& network, const ArmRanks& ranks);

/// Fraction of `images` that the network recognizes in eval mode. The images are cut into fixed blocks that the
/// trainers share, so the answer does not depend on their number. Collective: one all-reduce of one integer.
double test_accuracy(Network<float>& network, const LabelledImages& images, const ArmRanks& ranks);

/// What of OtherAccuracies is wanted.
struct EvaluationOptions {
  bool compares_ranks = false;  ///< Where ranks do not share statistics. Each evaluates all test images by itself.
  bool is_precise = false;      ///< A forward pass over the training data.
  bool in_train_mode = false;   ///< A forward pass over the test images.
};

/// Evaluates networks of one training; they stay as they are, running statistics included.
class Evaluator {
 public:
  /// All but `options` is borrowed. Local.
  Evaluator(const std::string& network, const DataSet& data, const ArmRanks& ranks, EvaluationOptions options)
      : name_(network), data_(data), ranks_(ranks), options_(options) {}

  /// Before share_running_stats(). `order` and `batch` as PreciseStatistics::recalculate(). Collective.
  OtherAccuracies operator()(Network<float>& network, const std::vector<Index>& order, Index batch);

 private:
  /// Of the ranks that have statistics.
  void compare_ranks(Network<float>& network, OtherAccuracies& accuracies) const;

  const std::string& name_;
  const DataSet& data_;
  const ArmRanks& ranks_;
  EvaluationOptions options_;
  PreciseStatistics& second_network();

  std::optional<PreciseStatistics> precise_;  ///< Made when first needed.
};

}  // namespace syncbn::train
