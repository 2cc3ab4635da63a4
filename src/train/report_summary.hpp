// SPDX-License-Identifier: MIT
// What a run comes to: numbers per arm and batch, and the verdict in words.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "report_record.hpp"

namespace syncbn::train {

/// Of some numbers; kUnknown if there are none.
struct Spread {
  Index count = 0;
  double median = kUnknown;  ///< Of an even count the mean of the two in the middle.
  double smallest = kUnknown;
  double largest = kUnknown;
};

/// Of those that are not kUnknown.
Spread spread_of(std::vector<double> values);

/// One arm on one number of ranks with one batch, over the seeds. Errors, losses and times are those of trainings that ended well.
struct ArmFigures {
  std::string arm;
  Index ranks = 1;
  Index batch = 0;
  RecordedShare share;
  Index begun = 0;  ///< Trainings.
  Index ended = 0;
  Index diverged = 0;
  std::vector<const RecordedTraining*> trainings;  ///< That ended and did not diverge; they belong to the record.
  Spread error;                                    ///< Fraction.
  Spread train_loss;
  Spread step_seconds;

  // Errors with other statistics than those of rank 0; of no training where they were not evaluated.
  Spread mean_statistics_error;
  Spread best_rank_error;
  Spread worst_rank_error;
  Spread precise_error;
  Spread train_mode_error;

  StepCosts costs;  ///< Medians over epochs and seeds.
};

/// The median of a number of the last kFinalEpochs epochs.
double final_value(const RecordedTraining& training, const std::function<double(const RecordedEpoch&)>& number);
double final_error(const RecordedTraining& training);

/// What final_value() is, in a run of so many epochs.
struct EndWords {
  std::string title;    ///< "test error at the end"
  std::string meaning;  ///< "the median of a training's last 3 epochs"
  std::string caution;  ///< A sentence, if that is not what one would think; else empty.
};
EndWords end_words(Index epochs);

/// The median over all epochs.
double step_seconds(const RecordedTraining& training);

/// Batch by batch, there as arms_on_ranks(). `run` must outlive the result.
std::vector<ArmFigures> figures_of(const RunRecord& run);

/// nullptr if there is none.
const ArmFigures* find_figures(const std::vector<ArmFigures>& figures, const std::string& arm, Index ranks,
                               Index batch);

/// "4", or "3 to 4" where they differ.
std::string sizes_text(const ShareSizes& sizes);

/// "1 sample", "4 samples", "0 to 1 samples".
std::string samples_text(const ShareSizes& sizes);

/// "1", "1 and 2", "1, 2 and 4".
std::string list_text(const std::vector<Index>& numbers);

/// The outcome in plain words.
struct Verdict {
  std::string headline;              ///< Sentences.
  std::vector<std::string> details;  ///< Sentences with the numbers behind it.
  std::string unfinished;            ///< What is missing of the run; empty: nothing.
};

Verdict verdict_of(const RunRecord& run, const std::vector<ArmFigures>& figures);

}  // namespace syncbn::train
