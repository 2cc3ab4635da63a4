// SPDX-License-Identifier: MIT
// Rows of parts that add up.
#include <algorithm>

#include "report_chart.hpp"
#include "report_svg.hpp"

namespace syncbn::train {

namespace {

constexpr double kValues = 72;  // for what is written beside the rows

double total_of(const ChartStack& row) {
  double total = 0;
  for (const ChartStack::Part& part : row.parts) total += part.size;
  return total;
}

svg::Scale x_scale(const StackChart& chart) {
  double largest = 0;
  std::vector<std::string> labels;
  for (const ChartStack& row : chart.rows) {
    largest = std::max(largest, total_of(row));
    labels.push_back(row.label);
  }
  return {0, largest > 0 ? largest : 1, svg::width_of_labels(labels), svg::kWidth - kValues, false};
}

std::string row_of(const ChartStack& row, const svg::Scale& x, double y) {
  std::string drawn = svg::text("end", x.from - 10, y + 4, row.label);
  double sum = 0;
  for (const ChartStack::Part& part : row.parts) {
    const double from = x(sum);
    sum += part.size;
    drawn += svg::box("part " + part.css_class, from, y - 9, x(sum) - from, 18, part.tip);
  }
  return drawn + svg::text("start", x(sum) + 8, y + 4, row.value);
}

}  // namespace

std::string svg_of(const StackChart& chart) {
  const svg::Scale x = x_scale(chart);
  const double floor = svg::kTop + svg::kRowHeight * static_cast<double>(chart.rows.size());
  std::string drawn = svg::open_svg(chart.id, chart.title, chart.description, floor + svg::kBottom);
  for (const double tick : round_ticks(0, x.high, 4)) {
    drawn += svg::line("grid", x(tick), svg::kTop, x(tick), floor) +
             svg::text("middle", x(tick), floor + 18, number_text(tick));
  }
  double y = svg::kTop + 0.5 * svg::kRowHeight;
  for (const ChartStack& row : chart.rows) {
    drawn += row_of(row, x, y);
    y += svg::kRowHeight;
  }
  drawn += svg::line("axis", x.from, svg::kTop, x.from, floor);
  return drawn + svg::text("middle", 0.5 * (x.from + x.to), floor + 38, chart.x_label) + "</svg>\n";
}

}  // namespace syncbn::train
