// SPDX-License-Identifier: MIT
#include "report_text.hpp"

#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>

namespace syncbn::train {

std::string escape(std::string_view text) {
  std::string safe;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      case '\'':
        safe += "&#39;";
        break;
      default:
        if (byte < 0x20 || byte == 0x7f) {
          safe += "\xEF\xBF\xBD";
        } else {
          safe += c;
        }
    }
  }
  return safe;
}

std::string fixed(double value, int digits) {
  if (!std::isfinite(value)) return "-";
  std::array<char, 400> text{};  // the largest double has 309 digits
  std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}

std::string percent(double fraction) {
  if (!std::isfinite(fraction)) return "-";
  return fixed(100.0 * fraction, std::abs(100.0 * fraction) < 9.995 ? 2 : 1) + " %";
}

std::string duration(double seconds) {
  if (!std::isfinite(seconds)) return "-";
  const bool is_short = seconds < 0.9995;
  const double value = is_short ? 1e3 * seconds : seconds;
  const int digits = value < 0.9995 ? 3 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return fixed(value, digits) + (is_short ? " ms" : " s");
}

std::string bytes_text(double bytes) {
  if (!std::isfinite(bytes)) return "-";
  if (bytes < 999.5) return fixed(bytes, 0) + (fixed(bytes, 0) == "1" ? " byte" : " bytes");
  const bool is_small = bytes < 999.5e3;
  const double value = bytes / (is_small ? 1e3 : 1e6);
  return fixed(value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0) + (is_small ? " kB" : " MB");
}

std::string capitalized(std::string text) {
  if (!text.empty()) text.front() = static_cast<char>(std::toupper(static_cast<unsigned char>(text.front())));
  return text;
}

std::string counted(Index count, const std::string& thing) {
  return std::to_string(count) + " " + thing + (count == 1 ? "" : "s");
}

}  // namespace syncbn::train
