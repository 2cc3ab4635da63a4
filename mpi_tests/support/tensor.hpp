// SPDX-License-Identifier: MIT
// Tensors that the tests own, and batches that are spread over ranks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "syncbn/tensor_view.hpp"

namespace syncbn::testing {

/// The number type of the oracle: x86 extended precision, 11 bits more than a double.
using Real = long double;

/// (N, C, *spatial) or (N, *spatial, C), dense. Elements are addressed by (sample, channel, position) in both layouts.
template <class T>
struct Tensor {
  std::vector<Index> extents;
  TensorShape shape;
  std::vector<T> values;

  Tensor() : Tensor(0, 0, {}, Layout::channels_first) {}
  Tensor(Index samples, Index channels, const std::vector<Index>& spatial, Layout layout) {
    extents.push_back(samples);
    if (layout == Layout::channels_first) extents.push_back(channels);
    extents.insert(extents.end(), spatial.begin(), spatial.end());
    if (layout == Layout::channels_last) extents.push_back(channels);
    shape = TensorShape::from_extents(extents.data(), extents.size(), layout);
    values.resize(static_cast<std::size_t>(shape.element_count()));
  }

  std::size_t offset(Index n, Index c, Index s) const {
    const Index inner = shape.layout == Layout::channels_first ? (n * shape.channels + c) * shape.positions + s
                                                               : (n * shape.positions + s) * shape.channels + c;
    return static_cast<std::size_t>(inner);
  }
  T& at(Index n, Index c, Index s) { return values[offset(n, c, s)]; }
  const T& at(Index n, Index c, Index s) const { return values[offset(n, c, s)]; }

  TensorView view() { return syncbn::view(values.data(), extents.data(), extents.size(), shape.layout); }
  ConstTensorView view() const { return syncbn::view(values.data(), extents.data(), extents.size(), shape.layout); }
};

/// The same extents and layout, zeros.
template <class T, class U = T>
Tensor<T> zeros_like(const Tensor<U>& other) {
  Tensor<T> result;
  result.extents = other.extents;
  result.shape = other.shape;
  result.values.assign(other.values.size(), T{});
  return result;
}

/// A global batch: part r belongs to rank r. Parts may be empty and may have different spatial extents.
/// Every rank builds all of it, so nothing needs to be gathered to know what is right.
template <class T>
using Batch = std::vector<Tensor<T>>;

/// The same numbers in another type.
template <class To, class From>
Batch<To> convert(const Batch<From>& batch) {
  Batch<To> result;
  for (const Tensor<From>& part : batch) {
    result.push_back(zeros_like<To>(part));
    std::transform(part.values.begin(), part.values.end(), result.back().values.begin(),
                   [](From value) { return static_cast<To>(value); });
  }
  return result;
}

/// All samples in one tensor, in the order of the ranks. The parts must agree in their spatial extents.
template <class T>
Tensor<T> concatenate(const Batch<T>& batch) {
  Tensor<T> all = batch.front();
  for (std::size_t r = 1; r < batch.size(); ++r) {
    all.extents[0] += batch[r].extents[0];
    all.values.insert(all.values.end(), batch[r].values.begin(), batch[r].values.end());
  }
  all.shape = TensorShape::from_extents(all.extents.data(), all.extents.size(), all.shape.layout);
  return all;
}

/// Calls visit(n, c, s) for every element, in memory order of channels-first.
template <class T, class Visit>
void for_each_element(const Tensor<T>& tensor, Visit&& visit) {
  for (Index n = 0; n < tensor.shape.samples; ++n) {
    for (Index c = 0; c < tensor.shape.channels; ++c) {
      for (Index s = 0; s < tensor.shape.positions; ++s) visit(n, c, s);
    }
  }
}

}  // namespace syncbn::testing
