// SPDX-License-Identifier: MIT
// Charts as inline SVG. Colours and dashes come from the page's style, by class.
#pragma once

#include <array>
#include <string>
#include <vector>

namespace syncbn::train {

/// A value with what it ranged over; low and high may be NaN.
struct ChartPoint {
  double x = 0;
  double y = 0;
  double low = 0;
  double high = 0;
  std::string tip;  ///< Shown when pointed at, read by screen readers.
};

struct ChartSeries {
  std::string css_class;
  std::vector<ChartPoint> points;  ///< By increasing x.
};

struct LineChart {
  std::string id;  ///< Of the elements that describe it; unique in the page.
  std::string title;
  std::string description;
  std::string x_label;
  std::string y_label;
  enum class Axis { linear, logarithmic } x_axis = Axis::linear;  ///< Logarithmic: ticks stand at the points, x > 0.
  std::vector<ChartSeries> series;
};

/// Lines with a band from low to high; the y axis covers what is there. Texts are escaped here.
std::string svg_of(const LineChart& chart);

/// One horizontal row.
struct ChartRow {
  std::string label;
  std::string css_class;
  double middle = 0;
  double low = 0;
  double high = 0;
  std::vector<double> dots;
  std::string value;  ///< Written beside it.
};

struct RowChart {
  std::string id;
  std::string title;
  std::string description;
  std::string x_label;
  enum class Marks { bars, dots } marks = Marks::bars;  ///< Bars begin at 0.
  std::vector<ChartRow> rows;
};

std::string svg_of(const RowChart& chart);

/// One horizontal row of parts that add up.
struct ChartStack {
  struct Part {
    std::string css_class;
    double size = 0;  ///< 0 or more.
    std::string tip;
  };
  std::string label;
  std::string value;  ///< Written beside it.
  std::vector<Part> parts;
};

struct StackChart {
  std::string id;
  std::string title;
  std::string description;
  std::string x_label;
  std::vector<ChartStack> rows;
};

std::string svg_of(const StackChart& chart);

/// Where the classes of a heat map's colours, "heat0" to "heat7", begin; below the first is heat0.
inline constexpr std::array<double, 7> kHeatLimits = {0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1};

struct HeatRow {
  std::string label;
  std::vector<double> values;  ///< One a column; NaN: an empty cell.
  std::string tip;
};

/// Cells coloured by class, rows from the top.
struct HeatMap {
  std::string id;
  std::string title;
  std::string description;
  std::string x_label;
  std::vector<double> columns;  ///< Where they begin on the x axis, increasing, one at least.
  std::vector<HeatRow> rows;
};

std::string svg_of(const HeatMap& map);

/// Some `count` round numbers that lie in low..high: multiples of 1, 2 or 5 times a power of ten. None unless low < high.
std::vector<double> round_ticks(double low, double high, int count);

/// Six significant digits, without needless zeros.
std::string number_text(double value);

/// A small mark as the series have them, for legends.
std::string swatch(const std::string& css_class);

}  // namespace syncbn::train
