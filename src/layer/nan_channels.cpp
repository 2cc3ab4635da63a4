// SPDX-License-Identifier: MIT
#include "layer/nan_channels.hpp"

#include <limits>

#include "kernels/one.hpp"

namespace syncbn::layer {
namespace {

template <class T>
void fill(T* data, const TensorShape& shape, Index c) {
  const T nan = static_cast<T>(std::numeric_limits<float>::quiet_NaN());
  if (shape.layout == Layout::channels_last || shape.positions == 1) {
    const Index rows = shape.samples * shape.positions;
    for (Index r = 0; r < rows; ++r) kernels::write(data + r * shape.channels + c, nan);
    return;
  }
  for (Index n = 0; n < shape.samples; ++n) {
    T* plane = data + (n * shape.channels + c) * shape.positions;
    for (Index s = 0; s < shape.positions; ++s) kernels::write(plane + s, nan);
  }
}

}  // namespace

void fill_channel_with_nan(const TensorView& tensor, Index c) {
  switch (tensor.type) {
    case DataType::f64:
      return fill(static_cast<double*>(tensor.data), tensor.shape, c);
    case DataType::bf16:
      return fill(static_cast<bfloat16*>(tensor.data), tensor.shape, c);
    case DataType::f16:
      return fill(static_cast<float16*>(tensor.data), tensor.shape, c);
    case DataType::f32:
      break;
  }
  fill(static_cast<float*>(tensor.data), tensor.shape, c);
}

}  // namespace syncbn::layer
