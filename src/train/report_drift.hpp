// SPDX-License-Identifier: MIT
// The section of the page that says how far local statistics would have been off, layer by layer.
#pragma once

#include <string>

#include "report_record.hpp"

namespace syncbn::train {

/// A heat map and a table per batch and number of ranks, as HTML; empty if the run has no such numbers.
std::string drift_of(const RunRecord& run);

}  // namespace syncbn::train
