// SPDX-License-Identifier: MIT
// Labelled images, as files give them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "buffer.hpp"

namespace syncbn::train {

inline constexpr Index kClassCount = 10;

/// Images of one size and their labels.
struct LabelledImages {
  Index count = 0;
  ImageShape shape;                  ///< (1, height, width), or (3, height, width): red, green, blue.
  std::vector<std::uint8_t> pixels;  ///< (count, channels, height, width)
  std::vector<std::uint8_t> labels;  ///< (count), 0 .. kClassCount - 1
};

struct DataSet {
  std::string name;  ///< For people: a folder, or "built-in".
  LabelledImages train;
  LabelledImages test;  ///< Images of the same size.
};

/// Copies image `index`, as numbers in [-1, 1], to `out`.
template <class T>
void copy_image(const LabelledImages& images, Index index, T* out) {
  const Index size = images.shape.size();
  const std::uint8_t* pixels = images.pixels.data() + index * size;
  for (Index i = 0; i < size; ++i) {
    out[i] = static_cast<T>(static_cast<int>(pixels[i]) * 2 - 255) / T(255);
  }
}

}  // namespace syncbn::train
