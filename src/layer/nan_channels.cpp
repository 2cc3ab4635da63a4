// SPDX-License-Identifier: MIT
#include "layer/nan_channels.hpp"

#include <algorithm>
#include <limits>

namespace syncbn::layer {
namespace {

template <class T>
void fill(T* data, const TensorShape& shape, Index c) {
  const T nan = std::numeric_limits<T>::quiet_NaN();
  if (shape.layout == Layout::channels_last || shape.positions == 1) {
    const Index rows = shape.samples * shape.positions;
    for (Index r = 0; r < rows; ++r) data[r * shape.channels + c] = nan;
    return;
  }
  for (Index n = 0; n < shape.samples; ++n)
    std::fill_n(data + (n * shape.channels + c) * shape.positions, shape.positions, nan);
}

}  // namespace

void fill_channel_with_nan(const TensorView& tensor, Index c) {
  if (tensor.type == DataType::f64) {
    fill(static_cast<double*>(tensor.data), tensor.shape, c);
  } else {
    fill(static_cast<float*>(tensor.data), tensor.shape, c);
  }
}

}  // namespace syncbn::layer
