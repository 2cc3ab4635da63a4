// SPDX-License-Identifier: MIT
// What all charts are drawn with.
#pragma once

#include <string>
#include <vector>

namespace syncbn::train::svg {

// In units of the viewBox, about a pixel each.
inline constexpr double kWidth = 440;
inline constexpr double kTop = 12;
inline constexpr double kBottom = 46;     ///< Ticks and the name of the x axis.
inline constexpr double kRowHeight = 32;  ///< Of charts of rows.

/// From numbers to positions.
struct Scale {
  double low = 0;
  double high = 1;
  double from = 0;
  double to = 1;
  bool is_logarithmic = false;

  double operator()(double value) const;
};

/// Of the finite values that it took.
struct Range {
  double low;
  double high;

  Range();
  Range(double lowest, double highest) : low(lowest), high(highest) {}
  void take(double value);
  bool is_empty() const { return low > high; }
};

/// A position, as a tenth of a unit.
std::string at(double position);

/// The element's head, with what screen readers read. Texts are escaped here and below.
std::string open_svg(const std::string& id, const std::string& title, const std::string& description, double height);
std::string line(const char* css_class, double x1, double y1, double x2, double y2);
/// `anchor`: start, middle or end. `more`: further attributes, with a blank in front.
std::string text(const char* anchor, double x, double y, const std::string& words, const std::string& more = "");
/// A rectangle with a tip.
std::string box(const std::string& css_class, double x, double y, double width, double height, const std::string& tip);

/// What labels at the left of rows need, their distance included.
double width_of_labels(const std::vector<std::string>& labels);

}  // namespace syncbn::train::svg
