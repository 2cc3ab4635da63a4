// SPDX-License-Identifier: MIT
// Finite differences with an error bound of their own.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace syncbn::train {

struct NumericalGradient {
  double value = 0;
  double tolerance = 0;  ///< What may lie between value and the exact derivative.
};

/// Central difference of f at *x, over `step` (times |*x| if that is above 1), in double, with its error bound.
///
/// The difference over h errs by f''' h^2/6 + O(h^4) and over 2h by four times that: their distance is three times the
/// error of the first. Each value of f carries up to `operations` roundings of the size of its largest terms (`scale`),
/// and the difference divides two of them by 2h.
///
/// A kink (a ReLU at 0) within h could hide from that, but not from one-sided derivatives, which differ by O(h^3) where f
/// is smooth. Where the slope changes by e at distance d < h, they differ by e|2h-3d|/2h, and the differences above by
/// ed/4h: together at least the error, e(h-d)/2h.
inline NumericalGradient numerical_gradient(double* x, double operations, double scale,
                                            const std::function<double()>& f, double step = 1e-5) {
  const double at = *x;
  const double h = step * std::max(1.0, std::abs(at));
  const auto value_at = [&](double shifted) {
    *x = shifted;
    return f();
  };
  const double here = f();
  const double right = value_at(at + h), right2 = value_at(at + 2 * h);
  const double left = value_at(at - h), left2 = value_at(at - 2 * h);
  *x = at;
  const double over_h = (right - left) / (2 * h);
  const double over_2h = (right2 - left2) / (4 * h);
  const double from_right = (4 * right - right2 - 3 * here) / (2 * h);
  const double from_left = (3 * here - 4 * left + left2) / (2 * h);
  const double rounding = operations * scale * std::numeric_limits<double>::epsilon() / h;
  return {over_h, std::abs(over_2h - over_h) + std::abs(from_right - from_left) + rounding};
}

}  // namespace syncbn::train
