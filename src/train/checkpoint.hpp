// SPDX-License-Identifier: MIT
// Files from which a training goes on as if it had never stopped.
#pragma once

#include <filesystem>
#include <functional>
#include <utility>

#include "trainer.hpp"

namespace syncbn::train {

inline constexpr const char* kCheckpointName = "checkpoint.syncbn";

/// All that a training has become by the end of a step (of an epoch's last step: behind the epoch's evaluation).
struct Checkpoint {
  std::vector<double> step_losses;  ///< As many as steps were done.
  std::vector<EpochRecord> epochs;
  double seconds = 0;

  std::vector<float> parameters;  ///< In the network's order, the same on all ranks.
  std::vector<float> velocity;    ///< SGD's, as the parameters.

  Index copies = 1;                           ///< Of what follows: one for all ranks, or one each where ranks differ.
  std::vector<float> running_stats;           ///< (copies, layers, mean then var)
  std::vector<std::int64_t> batches_tracked;  ///< (copies, layers)
};

/// What determines a training, and the sizes that follow from it. A checkpoint serves a training with the same key only.
struct TrainingKey {
  std::vector<std::pair<std::string, std::string>> entries;  ///< Name and value, for people too: "lr", "0.05".
  Index weights = 0;                                         ///< Of all parameters.
  Index channels = 0;                                        ///< Of all batch norm layers.
  Index norms = 0;                                           ///< Layers.
  Index steps = 0;                                           ///< Of the whole training.
  Index steps_per_epoch = 1;
  Index copies = 1;  ///< Of running statistics.
};

/// `ranks`: how many train. Arms in which ranks normalize differently name it; `single` and `sync` go on with the same bits
/// on any number. Local; reads all of `data` for its fingerprint.
TrainingKey key_of(const DataSet& data, const TrainingOptions& options, const Arm& arm, Index ranks);

/// Writes folder/checkpoint.syncbn: under another name, to the disk, then renamed; so whatever happens there is a whole
/// file, this one or the one before. For one rank. `still_here` is called every now and then.
/// Throws DataError; the file is the one before then.
void save_checkpoint(const std::filesystem::path& folder, const TrainingKey& key, const Checkpoint& checkpoint,
                     const std::function<void()>& still_here);

/// Reads folder/checkpoint.syncbn on rank 0, for all. Collective.
/// Throws DataError on all ranks, one sentence, if it is not a whole, undamaged checkpoint of this version and this key;
/// nothing is allocated that the file's own size and the key do not account for.
Checkpoint load_checkpoint(const std::filesystem::path& folder, const TrainingKey& key, MPI_Comm comm);

/// Drops the lines of folder/metrics.jsonl that tell of steps and epochs behind the checkpoint's: the training will write
/// them again. A line that was cut off goes, too. For one rank. Throws DataError.
void trim_metrics(const std::filesystem::path& folder, const Checkpoint& checkpoint);

}  // namespace syncbn::train
