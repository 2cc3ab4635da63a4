// SPDX-License-Identifier: MIT
// Rows of cells whose colour is a number's class.
#include <algorithm>
#include <array>
#include <cmath>

#include "report_chart.hpp"
#include "report_svg.hpp"

namespace syncbn::train {

namespace {

constexpr double kCellHeight = 24;
constexpr double kRight = 16;

std::size_t class_of(double value) {
  const auto limit = std::upper_bound(kHeatLimits.begin(), kHeatLimits.end(), value);
  return static_cast<std::size_t>(limit - kHeatLimits.begin());
}

/// A column is as wide as the way to the next, the last one as the one before.
svg::Scale x_scale(const HeatMap& map) {
  std::vector<std::string> labels;
  for (const HeatRow& row : map.rows) labels.push_back(row.label);
  const auto& columns = map.columns;
  const double last_width = columns.size() > 1 ? columns.back() - columns[columns.size() - 2] : 1;
  return {columns.front(), columns.back() + last_width, svg::width_of_labels(labels), svg::kWidth - kRight, false};
}

/// Draws neighbours of one class as one.
void add_cells(const HeatMap& map, const HeatRow& row, const svg::Scale& x, double y, std::vector<std::string>& paths) {
  for (std::size_t first = 0; first < row.values.size();) {
    if (!std::isfinite(row.values[first])) {
      ++first;
      continue;
    }
    const std::size_t heat = class_of(row.values[first]);
    std::size_t next = first + 1;
    while (next < row.values.size() && std::isfinite(row.values[next]) && class_of(row.values[next]) == heat) ++next;
    const double left = x(map.columns[first]);
    const double right = next < map.columns.size() ? x(map.columns[next]) : x.to;
    paths[heat] += 'M';
    paths[heat] += svg::at(left) + " " + svg::at(y + 1) + "H" + svg::at(right) + "V" + svg::at(y + kCellHeight - 1) +
                   "H" + svg::at(left) + "Z";
    first = next;
  }
}

}  // namespace

std::string svg_of(const HeatMap& map) {
  const svg::Scale x = x_scale(map);
  const double floor = svg::kTop + kCellHeight * static_cast<double>(map.rows.size());
  std::string drawn = svg::open_svg(map.id, map.title, map.description, floor + svg::kBottom);
  std::vector<std::string> paths(kHeatLimits.size() + 1);
  std::string labels;
  double y = svg::kTop;
  for (const HeatRow& row : map.rows) {
    add_cells(map, row, x, y, paths);
    labels += svg::text("end", x.from - 8, y + 0.5 * kCellHeight + 4, row.label) +
              svg::box("tip", x.from, y, x.to - x.from, kCellHeight, row.tip);
    y += kCellHeight;
  }
  for (std::size_t heat = 0; heat < paths.size(); ++heat) {
    if (paths[heat].empty()) continue;
    drawn += "<path class=\"cells heat" + std::to_string(heat) + "\" d=\"" + paths[heat] + "\"/>\n";
  }
  drawn += labels + svg::line("axis", x.from, floor, x.to, floor);
  for (const double tick : round_ticks(x.low, x.high, 5)) {
    if (tick != std::floor(tick)) continue;  // steps are whole
    drawn += svg::line("axis", x(tick), floor, x(tick), floor + 4) +
             svg::text("middle", x(tick), floor + 18, number_text(tick));
  }
  return drawn + svg::text("middle", 0.5 * (x.from + x.to), floor + 38, map.x_label) + "</svg>\n";
}

}  // namespace syncbn::train
