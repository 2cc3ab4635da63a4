// SPDX-License-Identifier: MIT
// A training that is taken up again has several beginnings: what run.json keeps of them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "syncbn/tensor_view.hpp"

namespace syncbn::train {

/// From one start of the program to its end.
struct RunSession {
  std::string started;  ///< UTC
  std::string command_line;
  Index ranks = 1;
  Index first_step = 1;
};

/// Those that a run.json tells of, in their order; what is not there, or cannot be read, is left out. Local, throws nothing.
std::vector<RunSession> sessions_in(const std::filesystem::path& run_json) noexcept;

}  // namespace syncbn::train
