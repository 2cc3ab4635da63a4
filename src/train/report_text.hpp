// SPDX-License-Identifier: MIT
// Numbers and foreign texts as a report shows them.
#pragma once

#include <string>
#include <string_view>

#include "syncbn/tensor_view.hpp"

namespace syncbn::train {

/// For HTML and SVG, in text and in quoted attributes. Control characters become U+FFFD.
std::string escape(std::string_view text);

/// With a fixed number of digits behind the point; "-" if it is not finite.
std::string fixed(double value, int digits);

/// 23.2 % of a fraction of 0.232: two digits behind the point below 10 %, else one.
std::string percent(double fraction);

/// A time with its unit, three significant digits (fewer below 0.1 ms): "3.41 ms".
std::string duration(double seconds);

/// "840 bytes", "13.4 kB", "1.25 MB" (thousands); "-" if it is not finite.
std::string bytes_text(double bytes);

/// With a large first letter.
std::string capitalized(std::string text);

/// "1 seed", "3 seeds".
std::string counted(Index count, const std::string& thing);

}  // namespace syncbn::train
