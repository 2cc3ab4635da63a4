// SPDX-License-Identifier: MIT
// Trains one network in one arm.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <mpi.h>

#include "arm.hpp"
#include "dataset.hpp"
#include "evaluate.hpp"
#include "records.hpp"
#include "sgd.hpp"
#include "sharding.hpp"

namespace syncbn::train {

/// A training ends with the median of its last epochs, which tell less of chance than the last alone.
inline constexpr Index kFinalEpochs = 3;

struct TrainingOptions {
  std::string network = "cnn";
  Index epochs = 5;
  Index batch = 64;        ///< Global: over all ranks. An epoch's last, incomplete batch is left out.
  std::uint64_t seed = 1;  ///< Of the initial weights and the order of the samples.
  Sharding sharding;       ///< Which samples of a global batch go to which rank.
  int threads = 1;         ///< Of each rank, in batch norm; changes no bit.
  SgdOptions sgd;
  EvaluationOptions evaluation;  ///< Of the last kFinalEpochs epochs.

  /// Where training starts: as the seed says, or one rounding error away from it in each weight.
  enum class Start { as_seeded, nudged } start = Start::as_seeded;
};

/// Throws UsageError, one sentence, if an option is out of its range or does not fit the data. Local, the same on all
/// ranks.
void check_options(const TrainingOptions& options, const DataSet& data);

/// One sentence on milestones that lie at or behind the training's end; empty if there are none. The options are checked.
std::string unreached_milestones(const TrainingOptions& options);

/// Told about progress, on rank 0 only. Must not throw.
struct Observer {
  std::function<void(const StepRecord&)> on_step = [](const StepRecord&) {};
  std::function<void(const EpochRecord&)> on_epoch = [](const EpochRecord&) {};
  /// In every step and every few images of an evaluation: for those who wait without training. May throw if nobody trains
  /// with this rank.
  std::function<void()> on_work = [] {};
};

struct Checkpoint;

/// How a training outlives its process: the file is checkpoint.hpp's. The same on all ranks, but for wants_stop().
struct Continuation {
  std::filesystem::path folder;       ///< Where checkpoints go; empty: none are written.
  Index every = 0;                    ///< Steps from one checkpoint to the next; 0: an epoch. One more at the end.
  const Checkpoint* start = nullptr;  ///< Where to go on, of a training with the same key; nullptr: from the beginning.

  /// Asked in every step on every rank that trains: if any of them says yes, all stop at the end of the step, with a
  /// checkpoint if there is a folder. Must not throw.
  std::function<bool()> wants_stop = [] { return false; };
};

/// What a training ends with.
struct TrainingResult {
  std::vector<double> step_losses;
  std::vector<EpochRecord> epochs;
  std::vector<float> parameters;     ///< All, in the network's order.
  std::vector<float> running_stats;  ///< Means and variances, rank 0's where ranks differ.
  std::uint64_t weights_hash = 0;    ///< hash_of() both.
  double test_accuracy = 0;          ///< In eval mode, after the last step. NaN if the training diverged.
  double seconds = 0;
  bool diverged = false;  ///< Stopped at the first loss, or at the end of an epoch with weights, that were not finite.
  bool stopped = false;   ///< Because Continuation::wants_stop() said so, with steps left. There are no weights then.
};

/// Samples of one step that come together: from the smallest share to the largest.
struct ShareSizes {
  Index smallest = 0;
  Index largest = 0;
};

/// What one rank computes; 0 if it has no samples.
ShareSizes samples_per_rank(const Arm& arm, Index batch, Index ranks);

/// What is normalized with one set of statistics: at least one sample.
ShareSizes samples_per_norm(const Arm& arm, Index batch, Index ranks);

/// FNV-1a, 64 bits, over the bytes of both vectors, one after the other.
std::uint64_t hash_of(const std::vector<float>& parameters, const std::vector<float>& running_stats);

/// Trains from the options' start and returns the result of rank 0, on all ranks.
///
/// Collective over `comm`. In the arm `single` rank 0 trains and the others wait until it is done (RollCall). In all other arms
/// each rank takes its units of each batch, gradients are averaged over the global batch, and all ranks hold the same
/// parameters. A training that goes on from a checkpoint has the result, to the last bit (but for times), of one that never
/// stopped; the observer is told of what is left. Throws UsageError, MpiError, MismatchError (the ranks' parameters went
/// apart), DataError (a checkpoint cannot be written), on all ranks.
TrainingResult train(const DataSet& data, const TrainingOptions& options, const Arm& arm, MPI_Comm comm,
                     const Observer& observer, const Continuation& continuation = {});

/// Makes the result of rank 0 that of all ranks. Collective. Throws as broadcast().
void broadcast_result(MPI_Comm comm, TrainingResult& result);

/// The samples of an epoch in the order in which its batches take them: 0 .. count-1, shuffled. Depends on its
/// arguments alone. A SampleDealer hands out what this order mixes.
std::vector<Index> epoch_order(Index count, std::uint64_t seed, Index epoch);

}  // namespace syncbn::train
