// SPDX-License-Identifier: MIT
// A run as a page that can be sent to somebody.
#pragma once

#include <string>

#include "report_summary.hpp"

namespace syncbn::train {

/// report.html: self-contained (its style and charts are in it, no script, nothing from elsewhere), light and dark, for
/// wide and narrow screens. What comes from the run's files is escaped.
std::string report_html(const RunRecord& run);

/// The style of the page.
extern const char* const kReportStyle;

}  // namespace syncbn::train
