// SPDX-License-Identifier: MIT
#include "report_parts.hpp"

#include <algorithm>

#include "idle_ranks.hpp"
#include "report_chart.hpp"
#include "report_text.hpp"

namespace syncbn::train {

std::string tag(const std::string& name, const std::string& content, const std::string& attributes) {
  return "<" + name + (attributes.empty() ? "" : " " + attributes) + ">" + content + "</" + name + ">\n";
}

std::string arm_class(const RunRecord& run, const std::string& arm) {
  if (arm == "single" || arm == "sync" || arm == "local") return "arm-" + arm;
  Index group = 0;
  for (const std::string& other : run.arms) {
    if (other == arm) break;
    if (other.rfind("group:", 0) == 0) ++group;
  }
  return "arm-group" + std::to_string(group % 3);
}

double samples_per_process(Index batch, Index ranks) {
  const Index busy = std::max<Index>(1, ranks - idle_ranks(batch, ranks));
  return static_cast<double>(batch) / static_cast<double>(busy);
}

bool has_several_cases(const RunRecord& run) { return run.batches.size() > 1 || run.rank_counts.size() > 1; }

std::string ranks_suffix(const RunRecord& run, Index ranks) {
  return run.rank_counts.size() > 1 ? ", " + counted(ranks, "rank") : "";
}

std::string arm_label(const RunRecord& run, const ArmFigures& figures) {
  if (!has_several_cases(run)) return figures.arm;
  const Index processes = figures.arm == "single" ? 1 : figures.ranks;
  const double n = samples_per_process(figures.batch, processes);
  return figures.arm + ranks_suffix(run, figures.ranks) + ", n = " + number_text(n);
}

Case case_of(const RunRecord& run, const ArmFigures& figures) {
  return {figures.batch, figures.arm == "single" ? run.rank_counts.front() : figures.ranks};
}

std::string rows_of(const RunRecord& run, const std::vector<ArmFigures>& figures,
                    const std::function<std::vector<std::string>(const ArmFigures&)>& cells) {
  const bool has_ranks = run.rank_counts.size() > 1;
  std::string rows;
  for (std::size_t i = 0; i < figures.size(); ++i) {
    std::string row = "<th scope=\"row\">" + escape(figures[i].arm) + "</th>";
    if (has_ranks) row += "<td>" + std::to_string(figures[i].ranks) + "</td>";
    for (const std::string& cell : cells(figures[i])) row += "<td>" + cell + "</td>";
    rows += tag("tr", row, i > 0 && case_of(run, figures[i]) != case_of(run, figures[i - 1]) ? "class=\"first\"" : "");
  }
  return rows;
}

std::vector<std::string> titles_of(const RunRecord& run, const std::vector<std::string>& of_cells) {
  std::vector<std::string> titles{"arm"};
  if (run.rank_counts.size() > 1) titles.push_back("ranks");
  titles.insert(titles.end(), of_cells.begin(), of_cells.end());
  return titles;
}

std::string scrolling_table(const std::string& name, const std::vector<std::string>& titles, const std::string& rows) {
  std::string head;
  for (const std::string& title : titles) head += "<th scope=\"col\">" + escape(title) + "</th>";
  const std::string table = tag("table", "<thead><tr>" + head + "</tr></thead>\n<tbody>\n" + rows + "</tbody>");
  return tag("div", table, "class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"" + escape(name) + "\"");
}

std::string figure_of(const std::string& title, const std::string& svg, const std::string& caption) {
  return tag("figure", tag("h3", escape(title)) + svg + tag("figcaption", escape(caption)));
}

std::string cores_caution(const RunRecord& run) {
  return run.shares_cores ? " More ranks than cores: they waited for each other to be scheduled." : "";
}

}  // namespace syncbn::train
