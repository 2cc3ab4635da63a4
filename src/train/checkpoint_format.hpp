// SPDX-License-Identifier: MIT
// A checkpoint and its bytes in a file. No MPI here: one rank reads and writes, and the reader is fuzzed.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint_bytes.hpp"
#include "records.hpp"

namespace syncbn::train {

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

/// One thing that determines a training, for people too: "lr", "0.05".
struct KeyEntry {
  std::string name;
  std::string value;
  enum class Decider {
    user,
    program
  } decider = Decider::user;  ///< By whom: an option, or this version of the program.
};

/// What determines a training, and the sizes that follow from it. A checkpoint serves a training with the same key only.
struct TrainingKey {
  std::vector<KeyEntry> entries;
  Index weights = 0;   ///< Of all parameters.
  Index channels = 0;  ///< Of all batch norm layers.
  Index norms = 0;     ///< Layers.
  Index steps = 0;     ///< Of the whole training.
  Index steps_per_epoch = 1;
  Index copies = 1;  ///< Of running statistics.
};

/// The whole file. Local.
Bytes checkpoint_bytes(const TrainingKey& key, const Checkpoint& checkpoint);

/// The reverse, from the file at `path`. Local.
/// Throws, one sentence that names the file: DataError if it is not a whole, undamaged checkpoint of this version,
/// UsageError if it is one of a training that the user gave other options; nothing is allocated that the file's own size and the key do not account for. What is accepted is, byte for byte,
/// checkpoint_bytes() of what is returned.
Checkpoint read_checkpoint(const std::filesystem::path& path, const TrainingKey& key);

}  // namespace syncbn::train
