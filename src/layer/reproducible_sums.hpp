// SPDX-License-Identifier: MIT
// Reduction::reproducible: binned sums over samples, the same bits for every order and grouping.
#pragma once

#include <vector>

#include "layer/bin_finish.hpp"
#include "layer/channel_sums.hpp"
#include "layer/sample_sums.hpp"

namespace syncbn::layer {

/// Body: a block of 2C binned accumulators, sum(x) and sum(x^2) or sum(dy) and sum(dy*(x-mean)). What a sample
/// contributes is a function of the sample alone, and the block of the set of contributions alone
/// (statistics/bins.hpp).
class ReproducibleSums final : public ChannelSums {
 public:
  ReproducibleSums(Index channels, DataType type, int rank, int threads);

  std::size_t body_bytes() const override { return statistics::block_bytes(2 * channels_, bins_); }
  void add_samples(const ConstTensorView& x, std::byte* body) override;
  void finish_moments(const std::byte* body, Index count, double* mean, double* mean_lo, double* var) override;
  void add_gradients(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean, std::byte* body) override;
  comm::Merge merge() const override;
  void add_nothing(std::byte* body) override;
  void finish_gradients(const std::byte* body, double* sum_dy, double* sum_dy_xmu) override;
  std::optional<NonFinite> non_finite(const std::byte* body) const override;
  bool has_overflowed(const std::byte* body) const override;

 private:
  struct Worker {
    SampleSums sums;
    std::vector<std::uint64_t> block;  // of its samples (the first worker's are in the body itself) or of its channels
    std::byte* memory() { return reinterpret_cast<std::byte*>(block.data()); }
  };

  Index parts_for(const TensorShape& shape) const;
  static bool splits_channels(const TensorShape& shape, Index parts);
  template <class Add>
  void add_in_parts(const TensorShape& shape, std::byte* body, const Add& add);
  template <class Add>
  void add_samples_in_parts(const TensorShape& shape, std::byte* body, Index parts, const Add& add);
  template <class Add>
  void add_channels(const TensorShape& shape, std::byte* body, Index parts, const Add& add);
  void start_block(Index part, Index channels);

  Index channels_;
  int bins_;
  DataType type_;
  int rank_;
  std::vector<Worker> workers_;  // one a thread
  BinFinish finish_;
};

}  // namespace syncbn::layer
