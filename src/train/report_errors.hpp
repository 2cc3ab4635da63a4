// SPDX-License-Identifier: MIT
// The charts of the page that show test errors, over the epochs and at the end.
#pragma once

#include <string>
#include <vector>

#include "report_summary.hpp"

namespace syncbn::train {

/// Figures, as HTML: a chart per batch and number of ranks, an arm a line; empty if no epoch has been recorded.
std::string error_curves_of(const RunRecord& run);

/// One batch and number of ranks: a figure with a row per arm. Several: a line per arm over the samples of a process. Empty if
/// no training has ended well.
std::string final_errors_of(const RunRecord& run, const std::vector<ArmFigures>& figures);

}  // namespace syncbn::train
