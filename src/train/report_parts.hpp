// SPDX-License-Identifier: MIT
// What the sections of the page are made of. Texts are escaped where it says so; the rest is HTML.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "report_summary.hpp"

namespace syncbn::train {

/// An element and a line break.
std::string tag(const std::string& name, const std::string& content, const std::string& attributes = "");

/// The class that gives an arm its colour, dash and marker.
std::string arm_class(const RunRecord& run, const std::string& arm);

/// Samples per process of the arms that split the batch, as an axis has them: of the processes that have any.
double samples_per_process(Index batch, Index ranks);

/// Whether there are several batches or several numbers of ranks.
bool has_several_cases(const RunRecord& run);

/// ", 4 ranks" where there are several numbers of ranks; else empty.
std::string ranks_suffix(const RunRecord& run, Index ranks);

/// The arm, and where there are several batches or numbers of ranks which ones; not escaped.
std::string arm_label(const RunRecord& run, const ArmFigures& figures);

/// Batch and number of ranks.
using Case = std::pair<Index, Index>;

/// `single` goes with the first number of ranks, as arms_on_ranks() has it.
Case case_of(const RunRecord& run, const ArmFigures& figures);

/// A row an arm, of one batch and number of ranks after the other, with a rule in between. `cells` are a row's, without the arm
/// and, where there are several numbers, its ranks.
std::string rows_of(const RunRecord& run, const std::vector<ArmFigures>& figures,
                    const std::function<std::vector<std::string>(const ArmFigures&)>& cells);

/// The titles of what rows_of() makes, from those of `cells`.
std::vector<std::string> titles_of(const RunRecord& run, const std::vector<std::string>& of_cells);

/// A table that scrolls by itself where it is wider than the page. Name and titles are escaped.
std::string scrolling_table(const std::string& name, const std::vector<std::string>& titles, const std::string& rows);

/// Title and caption are escaped.
std::string figure_of(const std::string& title, const std::string& svg, const std::string& caption);

/// What is to be said beside times if ranks shared cores; empty if not.
std::string cores_caution(const RunRecord& run);

}  // namespace syncbn::train
