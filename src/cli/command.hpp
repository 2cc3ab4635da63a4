// SPDX-License-Identifier: MIT
// How main() and the subcommands meet.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace syncbn::cli {

/// Exit codes, the same on all ranks.
enum ExitCode : int { kOk = 0, kCheckFailed = 1, kUsage = 2, kBadData = 3, kEnvironment = 4 };

/// What a subcommand does after the command line has been read and MPI initialized, on all ranks. Returns the exit
/// code.
using CommandBody = std::function<int()>;

/// Each declares its subcommand and options on `tool` (before MPI_Init) and returns what runs if it was chosen.
CommandBody add_bench(CLI::App& tool);
CommandBody add_compare(CLI::App& tool);
CommandBody add_info(CLI::App& tool);
CommandBody add_normalize(CLI::App& tool);
CommandBody add_train(CLI::App& tool);
CommandBody add_verify(CLI::App& tool);

/// Likewise; the body runs without MPI, in one process. It throws LocalFailure.
CommandBody add_report(CLI::App& tool);

}  // namespace syncbn::cli
