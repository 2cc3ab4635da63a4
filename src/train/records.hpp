// SPDX-License-Identifier: MIT
// What a training tells of its steps and epochs.
#pragma once

#include <limits>

#include "syncbn/tensor_view.hpp"

namespace syncbn::train {

/// Test accuracies with other statistics than those that are kept, rank 0's. NaN: not evaluated.
struct OtherAccuracies {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

  double mean_statistics = kNone;  ///< running_mean and running_var averaged over the ranks.
  double worst_rank = kNone;       ///< Each rank with its own: the smallest over the ranks,
  double best_rank = kNone;        ///< and the largest.
  double precise = kNone;          ///< Those of one pass over the training data: PreciseStatistics.
};

struct StepRecord {
  Index epoch = 0;  ///< From 1.
  Index step = 0;   ///< Since the start of training, from 1.
  Index steps = 0;  ///< Of the whole training.
  double loss = 0;  ///< Mean over the global batch, before the step.
};

struct EpochRecord {
  Index epoch = 0;        ///< From 1.
  double train_loss = 0;  ///< Mean over the epoch's steps.
  double test_accuracy = 0;
  double seconds = 0;       ///< Since the start of training.
  double step_seconds = 0;  ///< Median over the epoch's steps, on rank 0.
  OtherAccuracies others;   ///< As EvaluationOptions want.
};

}  // namespace syncbn::train
