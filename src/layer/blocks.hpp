// SPDX-License-Identifier: MIT
// Views as the kernels take them.
#pragma once

#include "kernels/kernels.hpp"
#include "layer/channel_sums.hpp"
#include "syncbn/tensor_view.hpp"

namespace syncbn::layer {

inline kernels::SampleShape sample_shape_of(const TensorShape& shape) {
  return {shape.channels, shape.positions, shape.layout == Layout::channels_last};
}

/// Tensors of this size and more come from memory, not from a cache: 32 MiB is the last level that a core sees of most
/// server processors, or more than its share.
inline constexpr Index kMemoryBytes = Index{32} << 20;

/// Some channels of a sample of x.
inline kernels::SampleShape sample_shape_of(const ConstTensorView& x, ChannelRange range) {
  const bool from_memory = x.shape.element_count() * size_of(x.type) >= kMemoryBytes;
  return {range.end - range.begin, x.shape.positions, x.shape.layout == Layout::channels_last, x.shape.channels,
          from_memory};
}
/// All of them.
inline kernels::SampleShape sample_shape_of(const ConstTensorView& x) {
  return sample_shape_of(x, {0, x.shape.channels});
}

inline kernels::BlockShape block_shape_of(const TensorShape& shape) { return {shape.samples, sample_shape_of(shape)}; }

/// Outputs of this size and more go past the cache. With what the pass reads they are half of a last-level cache of 32 MiB,
/// which other cores use, too; and storing through the cache costs a read of every line before it is overwritten. Written
/// and then read again at once, 12.8 MB take 1.80 ms through the cache and 1.35 past it; 3.2 MB 0.236 and 0.220.
inline constexpr Index kStreamingBytes = Index{8} << 20;

/// As measured at 6.4 MB: channels-last, where rows take turns, gains from half that size on (f32: forward 0.73 to 0.96 of
/// the time, backward 0.77), and so do 16-bit types (0.79 to 1.0); planes of f32 do not (0.90 to 1.15), nor do 2-D tensors,
/// whose sums are the cost, and for which x should stay (4.2 MB: 1.1 to 1.2).
inline Index streaming_bytes(const TensorView& out) {
  const bool is_channels_last = out.shape.layout == Layout::channels_last && out.shape.positions > 1;
  return is_channels_last || size_of(out.type) == 2 ? kStreamingBytes / 2 : kStreamingBytes;
}

/// The least plane (channels-first) whose stores go past the cache, in positions: a vector of any type. Planes that follow
/// each other are written as one array; a shorter one by itself, and each would leave lines that are written in part.
inline constexpr Index kStreamingPlane = 16;

/// The shape of an element pass from `in` to `out`.
inline kernels::BlockShape pass_shape_of(const ConstTensorView& in, const TensorView& out) {
  kernels::BlockShape shape = block_shape_of(out.shape);
  const bool is_worth_it = shape.sample.is_row_major() || out.shape.positions >= kStreamingPlane;
  shape.streams =
      is_worth_it && in.data != out.data && out.shape.element_count() * size_of(out.type) >= streaming_bytes(out);
  return shape;
}

/// Sample n of a tensor.
inline const std::byte* sample_of(const ConstTensorView& x, Index n) {
  return static_cast<const std::byte*>(x.data) + n * x.shape.channels * x.shape.positions * size_of(x.type);
}

/// Element i of a tensor, in memory order.
inline const void* element_of(const ConstTensorView& x, Index i) {
  return static_cast<const std::byte*>(x.data) + i * size_of(x.type);
}
inline void* element_of(const TensorView& y, Index i) { return static_cast<std::byte*>(y.data) + i * size_of(y.type); }

inline std::byte* sample_of(const TensorView& x, Index n) {
  return static_cast<std::byte*>(x.data) + n * x.shape.channels * x.shape.positions * size_of(x.type);
}

/// Channel c of sample n, where its first element is.
template <class View>
auto channels_of(const View& x, Index n, Index c) {
  const bool is_row_major = x.shape.layout == Layout::channels_last || x.shape.positions == 1;
  return sample_of(x, n) + (is_row_major ? c : c * x.shape.positions) * size_of(x.type);
}

/// Samples [begin, end) of a tensor.
inline ConstTensorView samples_of(const ConstTensorView& x, Index begin, Index end) {
  ConstTensorView part = x;
  part.data = sample_of(x, begin);
  part.shape.samples = end - begin;
  return part;
}

inline TensorView samples_of(const TensorView& x, Index begin, Index end) {
  TensorView part = x;
  part.data = sample_of(x, begin);
  part.shape.samples = end - begin;
  return part;
}

}  // namespace syncbn::layer
