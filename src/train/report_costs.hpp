// SPDX-License-Identifier: MIT
// The section of the page that says where the time of a step goes.
#pragma once

#include <string>
#include <vector>

#include "report_summary.hpp"

namespace syncbn::train {

/// A bar per arm and a table, as HTML; empty if the run has no such numbers.
std::string costs_of(const RunRecord& run, const std::vector<ArmFigures>& figures);

}  // namespace syncbn::train
