// SPDX-License-Identifier: MIT
// What a training tells of its steps and epochs.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "syncbn/tensor_view.hpp"

namespace syncbn::train {

/// Test accuracies with other statistics than those that are kept, rank 0's. NaN: not evaluated. Ranks that never had a sample
/// have no statistics of their own: "the ranks" are the others.
struct OtherAccuracies {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

  double mean_statistics = kNone;  ///< running_mean and running_var averaged over the ranks.
  double worst_rank = kNone;       ///< Each rank with its own: the smallest over the ranks,
  double best_rank = kNone;        ///< and the largest.
  double precise = kNone;          ///< Those of one pass over the training data: PreciseStatistics.
  double train_mode = kNone;  ///< Each batch of test images by its own. Wanted by `compare` alone; not in checkpoints.
};

/// What a step costs rank 0, as the mean over an epoch's steps (where a training went on in the middle of an epoch, those that
/// it did then). The four times add up to the mean time of a step. NaN: not
/// measured.
struct StepCosts {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

  double statistics_seconds = kNone;  ///< Of all batch norms, both passes: PassCosts.
  double message_seconds = kNone;
  double element_seconds = kNone;
  double rest_seconds = kNone;   ///< The other layers, the sum of gradients with its message, the update.
  double message_bytes = kNone;  ///< Sent for batch norm; gradients are not in it.

  bool are_known() const { return !std::isnan(seconds() + message_bytes); }
  double seconds() const { return statistics_seconds + message_seconds + element_seconds + rest_seconds; }
};

/// One layer in one step: DriftRecord's numbers, root mean square over the ranks that have samples. NaN if there are none, or
/// it cannot be said.
struct LayerDrift {
  std::string layer;
  double mean_drift = 0;
  double var_drift = 0;
};

struct StepRecord {
  Index epoch = 0;  ///< From 1.
  Index step = 0;   ///< Since the start of training, from 1.
  Index steps = 0;  ///< Of the whole training.
  double loss = 0;  ///< Mean over the global batch, before the step.

  /// In arm `sync` on several ranks, in some steps (DriftSampler); else none.
  std::vector<LayerDrift> drifts = {};
};

struct EpochRecord {
  Index epoch = 0;        ///< From 1.
  double train_loss = 0;  ///< Mean over the epoch's steps.
  double test_accuracy = 0;
  double seconds = 0;       ///< Since the start of training.
  double step_seconds = 0;  ///< Median over the epoch's steps, on rank 0.
  OtherAccuracies others;   ///< As EvaluationOptions want.
  StepCosts costs = {};     ///< A checkpoint does not keep them: recall_costs().
};

}  // namespace syncbn::train
