// SPDX-License-Identifier: MIT
// Whether a training may begin in a folder that an earlier run has written to.
#pragma once

#include <filesystem>
#include <string>

#include "run_folder.hpp"

namespace syncbn::train {

/// What the user wants of an earlier run.
enum class Wish { none, resume, overwrite };

/// What is to be done, and what of it a person should know.
struct FolderPlan {
  RunFolder::Earlier earlier = RunFolder::Earlier::removed;
  bool has_checkpoint = false;  ///< To go on from.
  std::string notice;           ///< One sentence, or empty.
};

/// Decides what becomes of `folder`, which may be missing, and touches nothing:
///
///   nothing there but files that no run writes   a new training
///   an earlier run, no wish                      UsageError
///   an earlier run, overwrite                    a new training in its place
///   a checkpoint, resume                         goes on; whether it fits is load_checkpoint()'s to say
///   no checkpoint, resume                        a new training, with a notice; but UsageError if there is a run that was not
///                                                started with the arguments of `run`
///
/// So a job may always be started with resume: it begins, or goes on if it was ended before, whenever that was.
/// For one rank. Throws UsageError.
FolderPlan plan_folder(const std::filesystem::path& folder, Wish wish, const RunDescription& run);

}  // namespace syncbn::train
