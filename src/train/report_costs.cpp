// SPDX-License-Identifier: MIT
#include "report_costs.hpp"

#include <algorithm>

#include "report_chart.hpp"
#include "report_parts.hpp"
#include "report_text.hpp"

namespace syncbn::train {

namespace {

/// In the order of time, batch norm's first.
struct Part {
  const char* css_class;
  const char* name;
  const char* meaning;
  double StepCosts::*seconds;
};

constexpr Part kParts[] = {
    {"part-statistics", "statistics", "sums over the process's own samples, and what is made of them",
     &StepCosts::statistics_seconds},
    {"part-message", "message", "standing still until the other processes' sums are there",
     &StepCosts::message_seconds},
    {"part-element", "element pass", "writing normalized values, and their gradients", &StepCosts::element_seconds},
    {"part-rest", "rest", "the other layers, the sum of all gradients, the update", &StepCosts::rest_seconds},
};

/// With enough digits for the small parts; "-" if it is not known.
std::string milliseconds(double seconds) {
  const double value = 1e3 * seconds;
  return fixed(value, value < 9.9995 ? 3 : value < 99.995 ? 2 : 1);
}

std::string with_share(double seconds, const StepCosts& costs) {
  const double share = 100 * seconds / costs.seconds();
  const std::string words = share > 0 && share < 0.5 ? "under 1 %" : fixed(share, 0) + " %";
  return milliseconds(seconds) + (costs.seconds() > 0 ? "<small>" + words + "</small>" : "");
}

std::string legend() {
  std::string items;
  for (const Part& part : kParts) {
    items += tag("li", std::string("<span class=\"patch ") + part.css_class + "\"></span><span><b>" + part.name +
                           "</b> " + escape(part.meaning) + "</span>");
  }
  return tag("ul", "\n" + items, "class=\"legend\"");
}

std::string chart_of(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  StackChart chart;
  chart.id = "costs";
  chart.title = "Milliseconds per step";
  chart.description =
      has_several_cases(run)
          ? "n samples per process where all have some. Means over an epoch's steps: a few slow ones make them longer "
            "than the median times above."
          : "The whole bar is a step. Means over an epoch's steps: a few slow ones make them longer than the median "
            "times above.";
  chart.x_label = "milliseconds per step";
  for (const ArmFigures& each : figures) {
    if (!each.costs.are_known()) continue;
    ChartStack row{arm_label(run, each), duration(each.costs.seconds()), {}};
    for (const Part& part : kParts) {
      const double seconds = each.costs.*part.seconds;
      row.parts.push_back(
          {part.css_class, 1e3 * seconds, row.label + ", " + part.name + ": " + milliseconds(seconds) + " ms"});
    }
    chart.rows.push_back(std::move(row));
  }
  return figure_of(chart.title, svg_of(chart), chart.description + cores_caution(run));
}

std::string table_of(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  const std::string rows = rows_of(run, figures, [](const ArmFigures& each) {
    std::vector<std::string> cells = {sizes_text(each.share.rank)};
    for (const Part& part : kParts) cells.push_back(with_share(each.costs.*part.seconds, each.costs));
    cells.push_back(milliseconds(each.costs.seconds()));
    cells.push_back(bytes_text(each.costs.message_bytes));
    return cells;
  });
  return scrolling_table("What a step costs",
                         titles_of(run, {"samples per process", "statistics, ms", "message, ms", "element pass, ms",
                                         "rest, ms", "together, ms", "sent for batch norm"}),
                         rows);
}

}  // namespace

std::string costs_of(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  const bool has_any =
      std::any_of(figures.begin(), figures.end(), [](const ArmFigures& each) { return each.costs.are_known(); });
  if (!has_any) return "";
  return tag("section",
             tag("h2", "What a step costs") + legend() + tag("div", chart_of(run, figures), "class=\"charts\"") +
                 table_of(run, figures) +
                 tag("p",
                     "On rank 0: the mean of an epoch's steps; of these, for each part by itself, the median over "
                     "epochs and seeds. Statistics, message and element pass are those of all batch norms, forward and "
                     "backward; the time of a message is also the time until the slowest process has come to it. "
                     "Sent: bytes per step that rank 0 gives away for batch norm; gradients, which every arm sends, "
                     "are not in it.",
                     "class=\"note\""));
}

}  // namespace syncbn::train
