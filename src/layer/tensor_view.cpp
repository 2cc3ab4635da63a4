// SPDX-License-Identifier: MIT
#include "syncbn/tensor_view.hpp"

namespace syncbn {
namespace {

/// product <- product * extent; false if that does not fit.
bool multiply(Index& product, Index extent) { return !__builtin_mul_overflow(product, extent, &product); }

/// Are these the strides of dense (N, C, *spatial), or of (N, *spatial, C), memory?
bool are_dense(const Index* extents, const Index* strides, std::size_t axes, Layout layout) {
  Index wanted = 1;
  const auto fits = [&](std::size_t axis) {
    const bool fit = extents[axis] == 1 || strides[axis] == wanted;
    wanted *= extents[axis];
    return fit;
  };
  if (layout == Layout::channels_last && !fits(1)) return false;
  for (std::size_t axis = axes - 1; axis >= 2; --axis) {
    if (!fits(axis)) return false;
  }
  return (layout == Layout::channels_last || fits(1)) && fits(0);
}

}  // namespace

TensorShape TensorShape::from_extents(const Index* extents, std::size_t axes, Layout layout) noexcept {
  TensorShape shape;
  shape.layout = layout;
  if (axes < 2) {
    shape.defect = ShapeDefect::too_few_dimensions;
    return shape;
  }
  for (std::size_t axis = 0; axis < axes; ++axis) {
    if (extents[axis] < 0) shape.defect = ShapeDefect::negative_extent;
  }
  if (shape.defect != ShapeDefect::none) return shape;

  const std::size_t channel_axis = layout == Layout::channels_last ? axes - 1 : 1;
  shape.samples = extents[0];
  shape.channels = extents[channel_axis];
  bool fits = true;
  for (std::size_t axis = 1; axis < axes; ++axis) {
    if (axis != channel_axis) fits = fits && multiply(shape.positions, extents[axis]);
  }
  Index bytes = 8;  // the widest element
  fits = fits && multiply(bytes, shape.samples) && multiply(bytes, shape.channels) && multiply(bytes, shape.positions);
  if (!fits) shape.defect = ShapeDefect::overflow;
  return shape;
}

TensorShape TensorShape::from_strides(const Index* extents, const Index* strides, std::size_t axes) noexcept {
  TensorShape shape = from_extents(extents, axes, Layout::channels_first);
  if (shape.defect != ShapeDefect::none || strides == nullptr || shape.is_empty()) return shape;
  if (are_dense(extents, strides, axes, Layout::channels_first)) return shape;
  if (are_dense(extents, strides, axes, Layout::channels_last)) {
    shape.layout = Layout::channels_last;
  } else {
    shape.defect = ShapeDefect::not_dense;
  }
  return shape;
}

}  // namespace syncbn
