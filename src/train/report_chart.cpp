// SPDX-License-Identifier: MIT
#include "report_chart.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "report_svg.hpp"
#include "report_text.hpp"

namespace syncbn::train {

namespace {

using svg::at;
using svg::kBottom;
using svg::kRowHeight;
using svg::kTop;
using svg::kWidth;
using svg::line;
using svg::open_svg;
using svg::Range;
using svg::Scale;
using svg::text;

// In units of the viewBox.
constexpr double kLineHeight = 290;
constexpr double kLeft = 54;
constexpr double kRight = 16;
constexpr double kRowValues = 72;

/// Shapes differ between classes, for those who see no colours.
std::string marker(const std::string& css_class, double x, double y, const std::string& tip) {
  constexpr double r = 3.6;
  std::string element, shape;
  if (css_class == "arm-single" || css_class == "arm-sync") {
    element = "circle";
    shape = "cx=\"" + at(x) + "\" cy=\"" + at(y) + "\" r=\"" + at(css_class == "arm-single" ? 1.7 * r : r) + "\"";
  } else if (css_class == "arm-local") {
    element = "rect";
    shape = "x=\"" + at(x - r) + "\" y=\"" + at(y - r) + "\" width=\"" + at(2 * r) + "\" height=\"" + at(2 * r) + "\"";
  } else {
    element = "path";
    shape = "d=\"M" + at(x) + " " + at(y - 1.3 * r) + "L" + at(x + 1.2 * r) + " " + at(y + r) + "H" + at(x - 1.2 * r) +
            "Z\"";
  }
  const std::string open = "<" + element + " class=\"mark\" " + shape;
  return tip.empty() ? open + "/>\n" : open + "><title>" + escape(tip) + "</title></" + element + ">\n";
}

Scale x_scale(const LineChart& chart) {
  Range range;
  for (const ChartSeries& series : chart.series) {
    for (const ChartPoint& point : series.points) range.take(point.x);
  }
  const bool is_logarithmic = chart.x_axis == LineChart::Axis::logarithmic;
  if (range.low == range.high) {  // one point, in the middle
    range = is_logarithmic ? Range{range.low / 2, range.high * 2} : Range{range.low - 1, range.high + 1};
  }
  constexpr double kInset = 10;
  return {range.low, range.high, kLeft + kInset, kWidth - kRight - kInset, is_logarithmic};
}

Scale y_scale(const LineChart& chart) {
  Range range;
  for (const ChartSeries& series : chart.series) {
    for (const ChartPoint& point : series.points) {
      range.take(point.y);
      range.take(point.low);
      range.take(point.high);
    }
  }
  const double margin =
      range.low == range.high ? std::max(1e-3, 0.1 * std::abs(range.high)) : 0.06 * (range.high - range.low);
  const double low = range.low >= 0 ? std::max(0.0, range.low - margin) : range.low - margin;
  return {low, range.high + margin, kLineHeight - kBottom, kTop, false};
}

/// At the points; on a linear axis with many of them at round numbers.
std::vector<double> x_ticks(const LineChart& chart, const Scale& x) {
  std::vector<double> ticks;
  for (const ChartSeries& series : chart.series) {
    for (const ChartPoint& point : series.points) ticks.push_back(point.x);
  }
  std::sort(ticks.begin(), ticks.end());
  ticks.erase(std::unique(ticks.begin(), ticks.end()), ticks.end());
  constexpr std::size_t kFew = 6;
  if (x.is_logarithmic || ticks.size() <= kFew) return ticks;
  ticks.clear();
  for (const double tick : round_ticks(x.low, x.high, kFew)) {
    if (tick == std::floor(tick)) ticks.push_back(tick);  // epochs are whole
  }
  return ticks;
}

std::string axes_of(const LineChart& chart, const Scale& x, const Scale& y) {
  std::string svg;
  for (const double tick : round_ticks(y.low, y.high, 5)) {
    svg += line("grid", kLeft, y(tick), kWidth - kRight, y(tick));
    svg += text("end", kLeft - 7, y(tick) + 4, number_text(tick));
  }
  const double floor = kLineHeight - kBottom;
  svg += line("axis", kLeft, floor, kWidth - kRight, floor);
  double last_label = -HUGE_VAL;
  for (const double tick : x_ticks(chart, x)) {
    svg += line("axis", x(tick), floor, x(tick), floor + 4);
    constexpr double kLabelWidth = 26;
    if (x(tick) - last_label < kLabelWidth) continue;
    svg += text("middle", x(tick), floor + 18, number_text(tick));
    last_label = x(tick);
  }
  svg += text("middle", 0.5 * (kLeft + kWidth - kRight), kLineHeight - 8, chart.x_label);
  const double middle = 0.5 * (kTop + floor);
  svg += text("middle", 14, middle, chart.y_label, " transform=\"rotate(-90 14 " + at(middle) + ")\"");
  return svg;
}

std::string path_of(const std::string& css_class, const std::string& data) {
  return "<path class=\"" + css_class + "\" d=\"" + data + "\"/>\n";
}

std::string band_of(const ChartSeries& series, const Scale& x, const Scale& y) {
  std::string upper, lower;
  for (const ChartPoint& point : series.points) {
    if (!std::isfinite(point.low) || !std::isfinite(point.high)) continue;
    const std::string across = at(x(point.x)) + " ";
    upper += upper.empty() ? 'M' : 'L';
    upper += across + at(y(point.high));
    lower.insert(0, "L" + across + at(y(point.low)));
  }
  return upper.empty() ? "" : path_of("band", upper + lower + "Z");
}

std::string line_of(const ChartSeries& series, const Scale& x, const Scale& y) {
  std::string path;
  for (const ChartPoint& point : series.points) {
    if (!std::isfinite(point.y)) continue;
    path += path.empty() ? 'M' : 'L';
    path += at(x(point.x)) + " " + at(y(point.y));
  }
  return path.empty() ? "" : path_of("line", path);
}

std::string markers_of(const ChartSeries& series, const Scale& x, const Scale& y) {
  constexpr std::size_t kMostMarkers = 30;
  const std::size_t stride = (series.points.size() + kMostMarkers - 1) / kMostMarkers;
  std::string svg;
  for (std::size_t i = 0; i < series.points.size(); ++i) {
    const ChartPoint& point = series.points[i];
    const bool is_shown = (series.points.size() - 1 - i) % stride == 0 && std::isfinite(point.y);
    if (is_shown) svg += marker(series.css_class, x(point.x), y(point.y), point.tip);
  }
  return svg;
}

Scale row_scale(const RowChart& chart) {
  Range range;
  for (const ChartRow& row : chart.rows) {
    for (const double value : {row.middle, row.low, row.high}) range.take(value);
    for (const double value : row.dots) range.take(value);
  }
  if (chart.marks == RowChart::Marks::bars) {
    range.take(0);
  } else {
    const double margin =
        range.low == range.high ? std::max(1e-3, 0.1 * std::abs(range.high)) : 0.08 * (range.high - range.low);
    range = {range.low >= 0 ? std::max(0.0, range.low - margin) : range.low - margin, range.high + margin};
  }
  if (range.low == range.high) range.high = range.low + 1;
  std::vector<std::string> labels;
  for (const ChartRow& row : chart.rows) labels.push_back(row.label);
  return {range.low, range.high, svg::width_of_labels(labels), kWidth - kRowValues, false};
}

std::string row_of(const ChartRow& row, RowChart::Marks marks, const Scale& x, double y) {
  std::string svg = "<g class=\"" + row.css_class + "\">\n" + text("end", x.from - 10, y + 4, row.label);
  double end = x.from;
  if (std::isfinite(row.middle)) {
    const std::string tip = row.label + ": " + row.value;
    if (marks == RowChart::Marks::bars) {
      svg += svg::box("bar", x(0), y - 9, x(row.middle) - x(0), 18, tip);
    }
    if (std::isfinite(row.low) && row.low < row.high) svg += line("whisker", x(row.low), y, x(row.high), y);
    for (const double dot : row.dots) svg += marker(row.css_class, x(dot), y, row.label + ": " + percent(dot / 100));
    if (marks == RowChart::Marks::dots) svg += line("median", x(row.middle), y - 11, x(row.middle), y + 11);
    end = std::max(x(row.middle), std::isfinite(row.high) ? x(row.high) : x.from);
  }
  return svg + text("start", end + 8, y + 4, row.value) + "</g>\n";
}

}  // namespace

std::string number_text(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.6g", std::abs(value) < 1e-12 ? 0.0 : value);
  return text.data();
}

std::vector<double> round_ticks(double low, double high, int count) {
  if (!(low < high) || !std::isfinite(high - low) || count < 1) return {};
  const double raw = (high - low) / count;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0}) {
    if (factor * power >= raw * 0.999) step = factor * power;
  }
  std::vector<double> ticks;
  const double slack = 1e-9 * step;
  for (double k = std::ceil((low - slack) / step); k * step <= high + slack; ++k) {
    ticks.push_back(k * step);
    if (ticks.size() > 100) break;  // low and high too close together for double
  }
  return ticks;
}

std::string svg_of(const LineChart& chart) {
  const Scale x = x_scale(chart);
  const Scale y = y_scale(chart);
  std::string svg = open_svg(chart.id, chart.title, chart.description, kLineHeight) + axes_of(chart, x, y);
  for (const ChartSeries& series : chart.series) {
    svg += "<g class=\"" + series.css_class + "\">\n";
    svg += band_of(series, x, y);
    svg += line_of(series, x, y);
    svg += markers_of(series, x, y);
    svg += "</g>\n";
  }
  return svg + "</svg>\n";
}

std::string svg_of(const RowChart& chart) {
  const Scale x = row_scale(chart);
  const double floor = kTop + kRowHeight * static_cast<double>(chart.rows.size());
  std::string svg = open_svg(chart.id, chart.title, chart.description, floor + kBottom);
  for (const double tick : round_ticks(x.low, x.high, 4)) {
    svg += line("grid", x(tick), kTop, x(tick), floor) + text("middle", x(tick), floor + 18, number_text(tick));
  }
  svg += line("axis", x.from, kTop, x.from, floor);
  double y = kTop + 0.5 * kRowHeight;
  for (const ChartRow& row : chart.rows) {
    svg += row_of(row, chart.marks, x, y);
    y += kRowHeight;
  }
  return svg + text("middle", 0.5 * (x.from + x.to), floor + 38, chart.x_label) + "</svg>\n";
}

std::string swatch(const std::string& css_class) {
  return "<svg class=\"swatch\" viewBox=\"0 0 34 14\" aria-hidden=\"true\"><g class=\"" + css_class +
         "\"><path class=\"line\" d=\"M2 7H32\"/>" + marker(css_class, 17, 7, "") + "</g></svg>";
}

}  // namespace syncbn::train
