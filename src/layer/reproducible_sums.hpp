// SPDX-License-Identifier: MIT
// Reduction::reproducible: binned sums over samples, the same bits for every order and grouping.
#pragma once

#include <vector>

#include "layer/bin_windows.hpp"
#include "layer/channel_sums.hpp"

namespace syncbn::layer {

/// Sums a range of samples into one block of accumulators: one thread's share.
class SampleSums {
 public:
  /// Starts on an empty `block` of 2C accumulators.
  void start(std::byte* block, Index channels, DataType type, int rank);
  void add(const ConstTensorView& x);
  void add_gradients(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean);
  /// Room for one masked gradient that nobody wants to have: of a sample of S > 1 or a block of rows.
  void reserve_masked(const TensorShape& shape, DataType type);

 private:
  void add_rows(const ConstTensorView& x);    // S = 1
  void add_planes(const ConstTensorView& x);  // S > 1
  void add_gradient_rows(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean);
  void add_gradient_planes(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean);
  std::byte* masked_of(const OutputGradient& dy, Index n);
  void deposit_pairs(const ConstTensorView& x, Index rows);
  Index samples_per_block(Index rows_per_sample) const;
  kernels::PairRows pair_rows(Index rows) const;

  Index channels_ = 0;
  statistics::BinsHeader* header_ = nullptr;
  BinWindows windows_;
  std::vector<double> planes_;  // (3, C): one sample's plane sums
  std::vector<double> a_, b_;   // (rows, C): pairs of a block of samples
  std::vector<std::byte> masked_;
};

/// Body: a block of 2C binned accumulators, sum(x) and sum(x^2) or sum(dy) and sum(dy*(x-mean)). What a sample
/// contributes is a function of the sample alone, and the block of the set of contributions alone
/// (statistics/bins.hpp).
class ReproducibleSums final : public ChannelSums {
 public:
  ReproducibleSums(Index channels, DataType type, int rank, int threads);

  std::size_t body_bytes() const override { return statistics::block_bytes(2 * channels_, bins_); }
  void add_samples(const ConstTensorView& x, std::byte* body) override;
  comm::Merge merge_moments() const override;
  void finish_moments(const std::byte* body, Index count, double* mean, double* mean_lo, double* var) override;
  void add_gradients(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean, std::byte* body) override;
  comm::Merge merge_gradients() const override;
  void finish_gradients(const std::byte* body, double* sum_dy, double* sum_dy_xmu) override;
  std::optional<NonFinite> non_finite(const std::byte* body) const override;
  bool has_overflowed(const std::byte* body) const override;

 private:
  template <class Add>
  void add_in_parts(const TensorShape& shape, std::byte* body, const Add& add);

  const double* units_of(const statistics::BinsView& sums);

  struct Worker {
    SampleSums sums;
    std::vector<std::uint64_t> block;  // the first worker's is the body itself
  };

  Index channels_;
  int bins_;
  DataType type_;
  int rank_;
  std::vector<Worker> workers_;  // one a thread
  std::vector<double> units_;    // (2C)
};

}  // namespace syncbn::layer
