// SPDX-License-Identifier: MIT
// A run as its files tell it.
#pragma once

#include <filesystem>
#include <iosfwd>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "comparison.hpp"

namespace syncbn::train {

inline constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

/// Numbers that a file does not have are kUnknown.
struct RecordedEpoch {
  Index epoch = 0;  ///< From 1.
  double train_loss = kUnknown;
  double test_error = kUnknown;  ///< Fraction.
  double step_seconds = kUnknown;

  // Errors with other statistics than rank 0's: OtherAccuracies.
  double mean_statistics_error = kUnknown;
  double best_rank_error = kUnknown;
  double worst_rank_error = kUnknown;
  double precise_error = kUnknown;
  double train_mode_error = kUnknown;

  StepCosts costs = {};
};

/// How far rank 0's statistics were from the batch's in one step.
struct RecordedDrift {
  Index step = 0;
  std::vector<std::string> layers;  ///< In the order of the forward pass; one at least.
  std::vector<double> mean_drifts;  ///< As many; kUnknown where it could not be said.
};

/// One training, as far as it came.
struct RecordedTraining {
  TrainingId id;
  std::vector<RecordedEpoch> epochs;  ///< Increasing.
  Index last_step = 0;                ///< The last one that was recorded.
  bool has_ended = false;
  bool has_diverged = false;
  std::string weights_hash;
  std::vector<RecordedDrift> drifts;  ///< By increasing step.
};

struct RecordedCheck {
  Index ranks = 1;  ///< Of sync.
  Index batch = 0;
  std::uint64_t seed = 0;
  TrainingId from;  ///< single, or sync on other ranks.
  bool has_passed = false;
  bool same_bits = false;
  double weights = kUnknown;  ///< max |sync - from|
  double loss = kUnknown;
};

/// What an arm does with a batch: how many samples a rank has, and how many are normalized together.
struct RecordedShare {
  std::string arm;
  Index ranks = 1;
  Index batch = 0;
  ShareSizes rank;
  ShareSizes norm;
};

struct RunRecord {
  std::string command;
  std::string data;
  std::string started;
  Index ranks = 1;                 ///< Processes of the run.
  std::vector<Index> rank_counts;  ///< On how many of them arms were trained; one number at least.
  Index epochs = 0;                ///< That a training was asked to take.
  Sharding sharding;
  std::vector<std::string> arms;
  std::vector<Index> batches;
  std::vector<std::uint64_t> seeds;
  std::vector<RecordedShare> shares;
  bool is_finished = false;
  bool shares_cores = false;  ///< More ranks that train than cores on a host: they wait for each other to be scheduled.
  std::string cores;          ///< "4 ranks on 2 cores of vm"
  std::vector<std::pair<std::string, std::string>> facts;  ///< How the run was made: name and value.

  std::vector<RecordedTraining> trainings;  ///< In the order in which they began; no controls.
  std::vector<RecordedCheck> checks;
};

/// What it trains with each batch and seed: arms_on_ranks().
std::vector<ArmOnRanks> arms_on_ranks(const RunRecord& run);

/// `run_json` and `metrics` are the contents of the files of their names; `folder` stands in errors. The last line of
/// metrics may be incomplete. Throws DataError, one sentence naming file and line, if they are not what a run writes.
RunRecord parse_run(const std::string& folder, const std::string& run_json, std::istream& metrics);

/// The same from a folder. Throws DataError if there is no run in it.
RunRecord load_run(const std::filesystem::path& folder);

}  // namespace syncbn::train
