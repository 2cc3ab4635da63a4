// SPDX-License-Identifier: MIT
// Eigen's matrices as the layer's tensors, without copies. (Tensors of Eigen's: eigen_tensor.hpp.) Needs Eigen 3.3.
#pragma once

#include <type_traits>

#include <Eigen/Core>

#include "syncbn/channel_vector.hpp"
#include "syncbn/tensor_view.hpp"

namespace syncbn::eigen {

/// ConstTensorView for what is const, and what only refers to const numbers; else TensorView.
template <class Dense>
using ViewOf = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(std::declval<Dense&>().data())>>,
                                  ConstTensorView, TensorView>;

/// (samples, channels) at `data`. The view of memory with gaps has a defect, so that the layer's call ends with the same error on all
/// ranks: nothing is ever copied.
template <class Dense>
ViewOf<Dense> dense_view(Dense& matrix, Index samples, Index channels) {
  const Index extents[2] = {samples, channels};
  // Of one sample, the distance to the next one may be anything; of one channel, that between channels.
  const Index strides[2] = {matrix.outerStride(), matrix.innerStride()};
  using Number = std::remove_const_t<typename std::remove_reference_t<Dense>::Scalar>;
  return {matrix.data(), DataTypeOf<Number>::value, TensorShape::from_strides(extents, strides, 2)};
}

/// A row-major N x C Matrix, Array, Map or Ref: every row is a sample. To be given as an lvalue: the view does not own it.
template <class Dense>
ViewOf<Dense> samples_in_rows(Dense& matrix) {
  static_assert(bool(std::decay_t<Dense>::IsRowMajor) || std::decay_t<Dense>::ColsAtCompileTime == 1,
                "syncbn: this matrix is column-major, so its rows are scattered in memory. Make it Eigen::RowMajor, or "
                "keep samples "
                "in columns and call samples_in_columns");
  return dense_view(matrix, matrix.rows(), matrix.cols());
}

/// A column-major C x N Matrix, Array, Map or Ref: every column is a sample.
template <class Dense>
ViewOf<Dense> samples_in_columns(Dense& matrix) {
  static_assert(!bool(std::decay_t<Dense>::IsRowMajor) || std::decay_t<Dense>::RowsAtCompileTime == 1,
                "syncbn: this matrix is row-major, so its columns are scattered in memory. Make it Eigen::ColMajor, or "
                "keep samples in "
                "rows and call samples_in_rows");
  return dense_view(matrix, matrix.cols(), matrix.rows());
}

/// gamma, beta, running statistics or gradients as an array of C numbers, to read and to write. Throws StateError if T is not the
/// element type.
template <class T>
Eigen::Map<Eigen::Array<T, Eigen::Dynamic, 1>> array_of(ChannelVector& vector) {
  return {vector.data<T>(), static_cast<Eigen::Index>(vector.size())};
}
template <class T>
Eigen::Map<const Eigen::Array<T, Eigen::Dynamic, 1>> array_of(const ChannelVector& vector) {
  return {vector.data<T>(), static_cast<Eigen::Index>(vector.size())};
}

}  // namespace syncbn::eigen
