// SPDX-License-Identifier: MIT
// From binned sums to numbers: by the kernels where they can, else by statistics/, with the same bits.
#pragma once

#include <cstddef>
#include <vector>

#include "statistics/bins_block.hpp"
#include "syncbn/tensor_view.hpp"

namespace syncbn::layer {

/// Keeps its storage. A block holds 2C accumulators that were filled from data of `type`.
class BinFinish {
 public:
  /// mean, what it lost in rounding, and biased var, (C) each, of `count` values: from sum(x) and sum(x^2).
  void moments(const std::byte* block, Index count, DataType type, double* mean, double* mean_lo, double* var);
  /// sum(dy) and sum(dy*(x-mean)), (C) each, rounded.
  void gradients(const std::byte* block, DataType type, double* sum_dy, double* sum_dy_xmu);

 private:
  const double* units_of(const statistics::BinsView& sums);

  std::vector<double> units_;  // (2C)
};

}  // namespace syncbn::layer
