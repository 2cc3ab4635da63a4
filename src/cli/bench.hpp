// SPDX-License-Identifier: MIT
// syncbn bench: what is measured.
#pragma once

#include <string>
#include <vector>

#include "syncbn/options.hpp"
#include "syncbn/tensor_view.hpp"

namespace syncbn::cli::bench {

/// (N, C, H, W) of the global batch. H = W = 1: a 2-D input.
struct Shape {
  Index n = 1;
  Index c = 1;
  Index h = 1;
  Index w = 1;

  Index positions() const noexcept { return h * w; }
  Index elements() const noexcept { return n * c * h * w; }
};

/// "32x64x112x112"; "128x256" for a 2-D input.
std::string text_of(const Shape& shape);

/// "32x64x112x112,128x256" to two shapes. Throws LocalFailure (usage) unless every extent is at least 1 and the tensor
/// has fewer than 2^48 elements.
std::vector<Shape> parse_shapes(const std::string& text);

/// Layers of ResNet-50 at batch 32, the small batches of one rank among many, and 2-D inputs.
std::vector<Shape> default_shapes();

enum class Pass { forward, backward };

constexpr const char* name_of(Pass pass) noexcept { return pass == Pass::forward ? "forward" : "backward"; }
constexpr const char* name_of(Reduction reduction) noexcept {
  return reduction == Reduction::fast ? "fast" : "reproducible";
}
/// The names that the field has for (N, C, H, W) and (N, H, W, C).
constexpr const char* field_name_of(Layout layout) noexcept {
  return layout == Layout::channels_last ? "nhwc" : "nchw";
}

/// What the layer does in its element passes beside batch normalization: y = relu(bn(x) + z).
struct Fused {
  Activation activation = Activation::none;
  bool residual = false;  ///< Adds z.

  bool has_relu() const noexcept { return activation == Activation::relu; }
  /// Has a gradient of z that is not dy itself.
  bool has_residual_gradient() const noexcept { return has_relu() && residual; }
};

constexpr const char* name_of(const Fused& fused) noexcept {
  if (fused.activation == Activation::relu) return fused.residual ? "residual+relu" : "relu";
  return fused.residual ? "residual" : "none";
}

struct Options {
  std::vector<Shape> shapes = default_shapes();
  std::vector<Layout> layouts{Layout::channels_first, Layout::channels_last};
  std::vector<Pass> passes{Pass::forward, Pass::backward};
  std::vector<Reduction> reductions{Reduction::reproducible, Reduction::fast};
  DataType dtype = DataType::f32;
  Fused fused;
  int threads = 1;
  double seconds = 1.0;  ///< For each shape, layout and pass.
  double spoil = 0.0;    ///< Relative fault put into the results before they are verified.
  bool json = false;
  bool comm = false;                                           ///< What the messages cost, instead of shapes.
  std::vector<Index> channels{64, 128, 256, 512, 1024, 2048};  ///< With `comm`.
};

}  // namespace syncbn::cli::bench
