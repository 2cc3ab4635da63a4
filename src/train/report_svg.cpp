// SPDX-License-Identifier: MIT
#include "report_svg.hpp"

#include <algorithm>
#include <cmath>

#include "report_text.hpp"

namespace syncbn::train::svg {

double Scale::operator()(double value) const {
  const auto number = [this](double x) { return is_logarithmic ? std::log(x) : x; };
  return from + (number(value) - number(low)) / (number(high) - number(low)) * (to - from);
}

Range::Range() : Range(HUGE_VAL, -HUGE_VAL) {}

void Range::take(double value) {
  if (!std::isfinite(value)) return;
  low = std::min(low, value);
  high = std::max(high, value);
}

std::string at(double position) { return fixed(position, 1); }

std::string open_svg(const std::string& id, const std::string& title, const std::string& description, double height) {
  return "<svg viewBox=\"0 0 " + at(kWidth) + " " + at(height) + "\" role=\"img\" aria-labelledby=\"" + id + "-t " +
         id + "-d\"><title id=\"" + id + "-t\">" + escape(title) + "</title><desc id=\"" + id + "-d\">" +
         escape(description) + "</desc>\n";
}

std::string line(const char* css_class, double x1, double y1, double x2, double y2) {
  return "<line class=\"" + std::string(css_class) + "\" x1=\"" + at(x1) + "\" y1=\"" + at(y1) + "\" x2=\"" + at(x2) +
         "\" y2=\"" + at(y2) + "\"/>\n";
}

std::string text(const char* anchor, double x, double y, const std::string& words, const std::string& more) {
  return "<text text-anchor=\"" + std::string(anchor) + "\" x=\"" + at(x) + "\" y=\"" + at(y) + "\"" + more + ">" +
         escape(words) + "</text>\n";
}

std::string box(const std::string& css_class, double x, double y, double width, double height, const std::string& tip) {
  return "<rect class=\"" + css_class + "\" x=\"" + at(x) + "\" y=\"" + at(y) + "\" width=\"" + at(width) +
         "\" height=\"" + at(height) + "\"><title>" + escape(tip) + "</title></rect>\n";
}

double width_of_labels(const std::vector<std::string>& labels) {
  constexpr double kLeast = 70;
  constexpr double kLetterWidth = 7.4;
  std::size_t letters = 0;
  for (const std::string& label : labels) letters = std::max(letters, label.size());
  return std::max(kLeast, kLetterWidth * static_cast<double>(letters) + 14);
}

}  // namespace syncbn::train::svg
