// SPDX-License-Identifier: MIT
// How large initial weights are: uniform in [-bound, bound].
#pragma once

#include <cmath>

#include "syncbn/tensor_view.hpp"

namespace syncbn::train {

/// Variance 2/fan_in, for layers before a ReLU. Source: He et al. 2015, arXiv:1502.01852, eq. 10.
inline double relu_bound(Index fan_in) { return std::sqrt(6.0 / static_cast<double>(fan_in)); }

/// Variance 1/(3 fan_in), for the last layer: first guesses near "every class alike".
inline double output_bound(Index fan_in) { return std::sqrt(1.0 / static_cast<double>(fan_in)); }

}  // namespace syncbn::train
