// SPDX-License-Identifier: MIT
// Views as the kernels take them.
#pragma once

#include "kernels/kernels.hpp"
#include "syncbn/tensor_view.hpp"

namespace syncbn::layer {

inline kernels::SampleShape sample_shape_of(const TensorShape& shape) {
  return {shape.channels, shape.positions, shape.layout == Layout::channels_last};
}

inline kernels::BlockShape block_shape_of(const TensorShape& shape) { return {shape.samples, sample_shape_of(shape)}; }

/// Sample n of a tensor.
inline const std::byte* sample_of(const ConstTensorView& x, Index n) {
  return static_cast<const std::byte*>(x.data) + n * x.shape.channels * x.shape.positions * size_of(x.type);
}

}  // namespace syncbn::layer
