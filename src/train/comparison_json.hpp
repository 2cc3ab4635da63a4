// SPDX-License-Identifier: MIT
// All that the page of a run says, for programs.
#pragma once

#include <string>

#include "report_summary.hpp"

namespace syncbn::train {

/// One JSON object, a line break at its end: all of `run_json` (the text of run.json), and beside it
///   "trainings"  each with its epochs: train_loss, test_error, step_seconds and step_costs, and other errors that were evaluated;
///   "figures"    an arm with a batch on so many ranks, over the seeds: test_error, train_loss and step_seconds with median,
///                smallest and largest, step_costs as medians;
///   "verdict"    headline and details, and what is missing of an unfinished run.
/// Errors are fractions, times seconds; what is not known is null. Throws DataError if `run_json` is no JSON object.
std::string comparison_json(const std::string& run_json, const RunRecord& run, const std::vector<ArmFigures>& figures,
                            const Verdict& verdict);

}  // namespace syncbn::train
