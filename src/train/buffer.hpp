// SPDX-License-Identifier: MIT
// Aligned storage, and the tensors that travel through a network.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

#include "syncbn/tensor_view.hpp"

namespace syncbn::train {

inline constexpr std::size_t kAlignment = 64;

/// Memory on 64-byte boundaries. Matrix products take their operands from here, so that two products of the same shape
/// run through the same instructions and give the same bits.
template <class T>
struct AlignedAllocator {
  using value_type = T;
  AlignedAllocator() = default;
  template <class U>
  AlignedAllocator(const AlignedAllocator<U>&) noexcept {}
  T* allocate(std::size_t count) {
    return static_cast<T*>(::operator new (count * sizeof(T), std::align_val_t{kAlignment}));
  }
  void deallocate(T* memory, std::size_t) noexcept { ::operator delete (memory, std::align_val_t{kAlignment}); }
  friend bool operator==(const AlignedAllocator&, const AlignedAllocator&) noexcept { return true; }
};

template <class T>
using Buffer = std::vector<T, AlignedAllocator<T>>;

/// (C, H, W) of one sample; (features, 1, 1) where there is no image.
struct ImageShape {
  Index channels = 0;
  Index height = 1;
  Index width = 1;

  Index positions() const noexcept { return height * width; }
  Index size() const noexcept { return channels * positions(); }
  friend bool operator==(const ImageShape&, const ImageShape&) = default;
};

/// (N, C, H, W), row-major, owned.
template <class T>
struct Tensor {
  Index samples = 0;
  ImageShape shape;
  Buffer<T> values;

  /// Sets the shape; the values are unspecified afterwards. Keeps the storage if it is large enough.
  void resize(Index sample_count, const ImageShape& sample_shape) {
    samples = sample_count;
    shape = sample_shape;
    values.resize(static_cast<std::size_t>(sample_count * sample_shape.size()));
  }
  T* sample(Index n) noexcept { return values.data() + n * shape.size(); }
  const T* sample(Index n) const noexcept { return values.data() + n * shape.size(); }

  TensorView view() noexcept {
    return channels_first(values.data(), {samples, shape.channels, shape.height, shape.width});
  }
  ConstTensorView view() const noexcept {
    return channels_first(values.data(), {samples, shape.channels, shape.height, shape.width});
  }
};

}  // namespace syncbn::train
