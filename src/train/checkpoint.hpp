// SPDX-License-Identifier: MIT
// Files from which a training goes on as if it had never stopped.
#pragma once

#include <filesystem>
#include <functional>

#include "checkpoint_format.hpp"
#include "trainer.hpp"

namespace syncbn::train {

inline constexpr const char* kCheckpointName = "checkpoint.syncbn";

/// `ranks`: how many train. Arms in which ranks normalize differently name it; `single` and `sync` go on with the same bits
/// on any number. Local; reads all of `data` for its fingerprint.
TrainingKey key_of(const DataSet& data, const TrainingOptions& options, const Arm& arm, Index ranks);

/// Writes folder/checkpoint.syncbn: under another name, to the disk, then renamed; so whatever happens there is a whole
/// file, this one or the one before. For one rank. `still_here` is called every now and then.
/// Throws DataError; the file is the one before then.
void save_checkpoint(const std::filesystem::path& folder, const TrainingKey& key, const Checkpoint& checkpoint,
                     const std::function<void()>& still_here);

/// Reads folder/checkpoint.syncbn on rank 0, for all: read_checkpoint(). Collective. Throws as that does, on all ranks.
Checkpoint load_checkpoint(const std::filesystem::path& folder, const TrainingKey& key, MPI_Comm comm);

/// Drops the lines of folder/metrics.jsonl that tell of steps and epochs behind the checkpoint's: the training will write
/// them again. A line that was cut off goes, too. For one rank. Throws DataError.
void trim_metrics(const std::filesystem::path& folder, const Checkpoint& checkpoint);

/// Gives the checkpoint's epochs their step costs, which it does not keep and the lines of folder/metrics.jsonl do; what is not
/// there, or makes no sense, stays unknown. For one rank.
void recall_costs(const std::filesystem::path& folder, Checkpoint& checkpoint);

}  // namespace syncbn::train
