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

/// Central difference of f at *x, in double, with its error bound.
///
/// The difference over h errs by f''' h^2/6 + O(h^4) and over 2h by four times that: their distance is three times the
/// error of the first. Each value of f carries up to `operations` roundings of the size of its largest terms (`scale`),
/// and the difference divides two of them by 2h.
inline NumericalGradient numerical_gradient(double* x, double operations, double scale,
                                            const std::function<double()>& f) {
  const double at = *x;
  const double h = 1e-5 * std::max(1.0, std::abs(at));
  const auto value_at = [&](double shifted) {
    *x = shifted;
    return f();
  };
  const double over_h = (value_at(at + h) - value_at(at - h)) / (2 * h);
  const double over_2h = (value_at(at + 2 * h) - value_at(at - 2 * h)) / (4 * h);
  *x = at;
  const double rounding = operations * scale * std::numeric_limits<double>::epsilon() / h;
  return {over_h, std::abs(over_2h - over_h) + rounding};
}

}  // namespace syncbn::train
