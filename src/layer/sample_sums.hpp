// SPDX-License-Identifier: MIT
// The sums of some samples, for some channels, in binned accumulators: one thread's work.
#pragma once

#include <vector>

#include "layer/bin_windows.hpp"
#include "layer/blocks.hpp"
#include "layer/channel_sums.hpp"

namespace syncbn::layer {

/// Sums a range of samples into one block of accumulators. Keeps its storage from one use to the next.
class SampleSums {
 public:
  /// Starts on an empty `block` of 2C accumulators, C the channels of `range`, for tensors of `shape` and `type` whose
  /// samples belong to `rank`.
  void start(std::byte* block, const TensorShape& shape, DataType type, ChannelRange range, int rank);
  void add(const ConstTensorView& x);
  /// mean: of all channels of x.
  void add_gradients(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean);
  /// Room for one masked gradient that nobody wants to have: of a sample of S > 1 or a block of rows.
  void reserve_masked(const TensorShape& shape, DataType type);

 private:
  void add_rows(const ConstTensorView& x);    // S = 1
  void add_planes(const ConstTensorView& x);  // S > 1
  void add_gradient_rows(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean);
  void add_gradient_planes(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean);
  void deposit_pairs(const ConstTensorView& x, Index rows);
  Index samples_per_block(Index rows_per_sample) const;
  kernels::PairRows pair_rows(Index rows) const;
  std::byte* masked_of(const OutputGradient& dy, Index n);

  /// The first of the range's channels in sample n.
  template <class View>
  auto part_of_sample(const View& x, Index n) const {
    return channels_of(x, n, range_.begin);
  }

  ChannelRange range_ = {0, 0};
  Index channels_ = 0;  // of the range
  statistics::BinsHeader* header_ = nullptr;
  BinWindows windows_;
  std::vector<double> planes_;  // (3, C): one sample's plane sums
  std::vector<double> a_, b_;   // (rows, C): pairs of a block of samples
  std::vector<std::byte> masked_;
};

}  // namespace syncbn::layer
