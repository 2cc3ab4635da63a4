// SPDX-License-Identifier: MIT
// Tensors that somebody else owns, as the layer sees them: pointer, element type and (N, C, S) or (N, S, C).
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "syncbn/export.h"
#include "syncbn/half.hpp"

namespace syncbn {

using Index = std::int64_t;  ///< Extents and element counts.

/// Element types. bf16 and f16 are of tensors only: what belongs to channels is f32 or f64.
enum class DataType : std::int32_t { f32 = 0, f64 = 1, bf16 = 2, f16 = 3 };

/// Bytes of one element.
constexpr Index size_of(DataType type) noexcept {
  switch (type) {
    case DataType::f64:
      return 8;
    case DataType::bf16:
    case DataType::f16:
      return 2;
    case DataType::f32:
      break;
  }
  return 4;
}

/// "f32", "f64", "bf16", "f16": for messages.
constexpr const char* name_of(DataType type) noexcept {
  switch (type) {
    case DataType::f64:
      return "f64";
    case DataType::bf16:
      return "bf16";
    case DataType::f16:
      return "f16";
    case DataType::f32:
      break;
  }
  return "f32";
}

/// The type of gamma, beta, running statistics and parameter gradients for tensors of `type`: f64 for f64, else f32.
constexpr DataType parameter_type_for(DataType type) noexcept {
  return type == DataType::f64 ? DataType::f64 : DataType::f32;
}

/// The DataType of a C++ element type.
template <class T>
struct DataTypeOf;
template <>
struct DataTypeOf<float> : std::integral_constant<DataType, DataType::f32> {};
template <>
struct DataTypeOf<double> : std::integral_constant<DataType, DataType::f64> {};
template <>
struct DataTypeOf<bfloat16> : std::integral_constant<DataType, DataType::bf16> {};
template <>
struct DataTypeOf<float16> : std::integral_constant<DataType, DataType::f16> {};

/// Where the channel axis is: (N, C, *spatial) or (N, *spatial, C). The same thing for (N, C).
enum class Layout : std::int32_t { channels_first = 0, channels_last = 1 };

/// "channels-first", "channels-last".
constexpr const char* name_of(Layout layout) noexcept {
  return layout == Layout::channels_last ? "channels-last" : "channels-first";
}

/// What is wrong with a list of extents. A defect is kept, not thrown, when a view is made: a rank with a bad tensor
/// must still take part in the layer's message, and the layer then reports it on every rank.
enum class ShapeDefect : std::int32_t {
  none = 0,
  too_few_dimensions,
  negative_extent,
  overflow,
  not_dense,     ///< Strides of neither layout.
  unknown_type,  ///< An element type that is none of DataType: of callers that cast from numbers.
};

/// N samples, C channels, S positions: S is the product of the spatial extents, 1 for 2-D tensors. Dense, row-major.
struct TensorShape {
  Index samples = 0;
  Index channels = 0;
  Index positions = 1;
  Layout layout = Layout::channels_first;
  ShapeDefect defect = ShapeDefect::none;

  /// From the full list of extents, (N, C, *spatial) or (N, *spatial, C); any number of spatial axes, none too.
  SYNCBN_API static TensorShape from_extents(const Index* extents, std::size_t axes, Layout layout) noexcept;

  /// From extents (N, C, *spatial) and strides in elements, as DLPack and PyTorch have them: the layout is what the strides
  /// say, not_dense if they fit neither. Those of extents of 1 may be anything. strides null: row-major.
  SYNCBN_API static TensorShape from_strides(const Index* extents, const Index* strides, std::size_t axes) noexcept;

  /// Also of a shape whose element_count() does not fit an Index.
  bool is_empty() const noexcept { return samples == 0 || channels == 0 || positions == 0; }
  /// Of a shape without a defect.
  Index element_count() const noexcept { return samples * channels * positions; }
  friend bool operator==(const TensorShape& a, const TensorShape& b) noexcept {
    return a.samples == b.samples && a.channels == b.channels && a.positions == b.positions &&
           (a.layout == b.layout || a.positions == 1) && a.defect == b.defect;
  }
  friend bool operator!=(const TensorShape& a, const TensorShape& b) noexcept { return !(a == b); }
};

/// A tensor to read. Trivially copyable; owns nothing; any alignment. A default-made view means "no tensor".
struct ConstTensorView {
  const void* data = nullptr;
  DataType type = DataType::f32;
  TensorShape shape;

  bool is_none() const noexcept { return data == nullptr && shape.samples == 0 && shape.channels == 0; }
};

/// A tensor to write.
struct TensorView {
  void* data = nullptr;
  DataType type = DataType::f32;
  TensorShape shape;

  bool is_none() const noexcept { return data == nullptr && shape.samples == 0 && shape.channels == 0; }
  operator ConstTensorView() const noexcept { return {data, type, shape}; }
};

/// A view of dense row-major data, e.g. `channels_first(x.data(), {n, c, h, w})`.
template <class T>
auto view(T* data, const Index* extents, std::size_t axes, Layout layout) noexcept {
  using View = std::conditional_t<std::is_const_v<T>, ConstTensorView, TensorView>;
  return View{data, DataTypeOf<std::remove_const_t<T>>::value, TensorShape::from_extents(extents, axes, layout)};
}

template <class T>
auto channels_first(T* data, std::initializer_list<Index> extents) noexcept {
  return view(data, extents.begin(), extents.size(), Layout::channels_first);
}

template <class T>
auto channels_last(T* data, std::initializer_list<Index> extents) noexcept {
  return view(data, extents.begin(), extents.size(), Layout::channels_last);
}

}  // namespace syncbn
