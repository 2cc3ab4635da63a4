// SPDX-License-Identifier: MIT
// Tensor and TensorMap of Eigen's unsupported module as the layer's tensors, without copies.
#pragma once

#include <algorithm>
#include <type_traits>

#include <unsupported/Eigen/CXX11/Tensor>

#include "syncbn/tensor_view.hpp"

namespace syncbn::eigen {

template <class EigenTensor>
auto tensor_view(EigenTensor& tensor, Layout layout) {
  using Plain = std::decay_t<EigenTensor>;
  constexpr bool kIsRowMajor = static_cast<int>(Plain::Layout) == static_cast<int>(Eigen::RowMajor);
  Index extents[Plain::NumDimensions];
  for (int axis = 0; axis < Plain::NumDimensions; ++axis) extents[axis] = static_cast<Index>(tensor.dimension(axis));
  // Eigen's column-major tensors have the same memory with their dimensions in reverse order.
  if (!kIsRowMajor) std::reverse(extents, extents + Plain::NumDimensions);
  return view(tensor.data(), extents, Plain::NumDimensions, layout);
}

/// Row-major (N, C, *spatial), or column-major (*reversed spatial, C, N): the memory of (N, C, *spatial) either way.
template <class EigenTensor>
auto channels_first(EigenTensor& tensor) {
  return tensor_view(tensor, Layout::channels_first);
}

/// Row-major (N, *spatial, C), or column-major (C, *reversed spatial, N).
template <class EigenTensor>
auto channels_last(EigenTensor& tensor) {
  return tensor_view(tensor, Layout::channels_last);
}

}  // namespace syncbn::eigen
