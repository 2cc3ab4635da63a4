// SPDX-License-Identifier: MIT
// Trains several arms from the same start on the same batches, on one or several numbers of ranks, and checks that `sync` is
// `single`.
#pragma once

#include <optional>

#include "trainer.hpp"

namespace syncbn::train {

struct ComparisonOptions {
  TrainingOptions training;  ///< `batch`, `seed` and `start` are not used.
  std::vector<Arm> arms;
  std::vector<Index> batches;  ///< Global batches, one at least.
  std::vector<std::uint64_t> seeds;
  std::vector<Index> ranks = {};  ///< How many train, from 1 to the size of the communicator; empty: all of them.
};

/// `options.ranks`, or all ranks if there are none.
std::vector<Index> rank_counts(const ComparisonOptions& options, MPI_Comm comm);

/// The options of one training of a comparison. The learning rate is that of the first batch, and goes with the batch.
/// Source: Goyal et al. 2017, arXiv:1706.02677, the linear scaling rule.
TrainingOptions training_of(const ComparisonOptions& options, Index batch, std::uint64_t seed);

/// An arm on some of the ranks.
struct ArmOnRanks {
  Arm arm;
  Index ranks = 1;
};

/// What is trained with each batch and seed, in this order: all arms on the first number of ranks, then on the next. `single`,
/// which is one process whatever the others are, comes once, among the first; its number of ranks is 1 if there are several
/// numbers, else that one.
std::vector<ArmOnRanks> arms_on_ranks(const std::vector<Arm>& arms, const std::vector<Index>& rank_counts);

/// Which training of a run this is.
struct TrainingId {
  std::string label;  ///< The arm's name, or "control".
  Index batch = 0;    ///< Global.
  std::uint64_t seed = 0;
  Index ranks = 1;  ///< As arms_on_ranks() has it.

  bool operator==(const TrainingId&) const = default;
};

/// One training of the comparison. The weights are dropped; their hash stays.
struct ArmRun {
  Arm arm;
  Index ranks = 1;
  Index batch = 0;
  std::uint64_t seed = 0;
  TrainingResult result;

  TrainingId id() const { return {arm.name(), batch, seed, ranks}; }
};

/// How far two trainings from one seed went apart. Infinite if one of them stopped early.
struct Difference {
  double weights = 0;      ///< max |a - b| over all parameters, at the end.
  double loss = 0;         ///< max |a - b| over all steps.
  double early_loss = 0;   ///< The same over the first kEarlySteps steps.
  bool same_bits = false;  ///< Equal weights, running statistics included, bit for bit.
};

inline constexpr Index kEarlySteps = 10;

/// Is `sync` the same training as `single`? And without `single` the same on all numbers of ranks: then in what follows the
/// first of them stands for `single`.
///
/// To the last bit, by construction (gradient_sum.hpp), wherever all processors run the same instructions: then all
/// differences are 0 and no control runs. What is left are ranks on machines whose exp() and log() round differently.
/// Training multiplies a rounding error by a factor that no formula gives. So it is measured: the control is a second
/// `single` run whose initial weights are each moved to a neighbouring number. `sync` passes if in none of the three
/// differences it is further from `single` than kSlack times the control, plus the rounding of the losses themselves. A
/// wrong statistic shows in the first steps, where the control is still tiny. If `single` diverges there is nothing to be
/// like: the check has not passed.
struct SyncCheck {
  Index ranks = 1;  ///< Of `sync`.
  Index batch = 0;
  std::uint64_t seed = 0;
  TrainingId from;  ///< What it is compared with.
  Difference sync;
  std::optional<Difference> control;
  bool has_passed = false;
};

inline constexpr double kSlack = 16;

struct Comparison {
  std::vector<ArmRun> runs;       ///< Seed by seed, there batch by batch, there as arms_on_ranks().
  std::vector<SyncCheck> checks;  ///< Per seed and batch one for each `sync` that there is something to compare with.
  bool stopped = false;           ///< Before its end, because somebody wished so: there is what was complete.
};

Difference difference(const TrainingResult& a, const TrainingResult& b);

/// The verdict of a SyncCheck; a control of zeros leaves the rounding alone.
bool is_within_bound(const Difference& sync, const Difference& control);

/// Told about the progress of a comparison, on all ranks. Must not throw.
struct ComparisonObserver {
  std::function<Observer(const TrainingId&)> on_begin = [](const TrainingId&) { return Observer(); };
  std::function<void(const ArmRun&)> on_end = [](const ArmRun&) {};  ///< Not for controls.
  std::function<void(const SyncCheck&)> on_check = [](const SyncCheck&) {};
};

/// `wants_stop` is asked in every step on the ranks that train, and on all between trainings; any of them may say yes. Must not
/// throw.
///
/// Collective over `comm`; the same result on all ranks. Throws as train() and FirstRanks.
Comparison compare(
    const DataSet& data, const ComparisonOptions& options, MPI_Comm comm, const ComparisonObserver& observer,
    const std::function<bool()>& wants_stop = [] { return false; });

}  // namespace syncbn::train
