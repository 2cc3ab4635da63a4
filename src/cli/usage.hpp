// SPDX-License-Identifier: MIT
// Reading the command line, and what to say when it is wrong.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "failure.hpp"

namespace CLI {
class App;
class ParseError;
}  // namespace CLI

namespace syncbn::cli {

/// The candidate with the fewest edits (insert, delete, replace, swap of neighbours) from `word`; nullopt if none is
/// near.
std::optional<std::string> closest(const std::string& word, const std::vector<std::string>& candidates);

/// The subcommand that was given, or "" if none.
std::string chosen_subcommand(const CLI::App& tool);

/// One sentence for a command line that CLI11 refused. An unknown name is blamed before a missing one: the two often
/// have one cause, a misspelling.
Failure usage_failure(const CLI::App& tool, const CLI::ParseError& error);

/// The subcommand with the options it was given, to be pasted into a shell: "syncbn compare --epochs 2". Without launcher.
std::string command_line_of(const CLI::App& command);

}  // namespace syncbn::cli
