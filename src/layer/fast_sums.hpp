// SPDX-License-Identifier: MIT
// Reduction::fast: (count, mean, M2) and plain sums, merged in double.
#pragma once

#include <vector>

#include "layer/channel_sums.hpp"

namespace syncbn::layer {

/// Body: mean (C) and M2 (C), or sum_dy (C) and sum_dy_xmu (C), doubles; then the first rank and channel with a sum
/// that is not finite. The count rides in the message's header.
class FastSums final : public ChannelSums {
 public:
  FastSums(Index channels, int rank)
      : channels_(channels), rank_(rank), sample_(3 * static_cast<std::size_t>(channels)) {}

  std::size_t body_bytes() const override;
  void add_samples(const ConstTensorView& x, std::byte* body) override;
  void finish_moments(const std::byte* body, Index count, double* mean, double* mean_lo, double* var) override;
  void add_gradients(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean, std::byte* body) override;
  comm::Merge merge() const override;
  void add_nothing(std::byte* body) override;
  void finish_gradients(const std::byte* body, double* sum_dy, double* sum_dy_xmu) override;
  std::optional<NonFinite> non_finite(const std::byte* body) const override;
  bool has_overflowed(const std::byte*) const override { return false; }

 private:
  void merge_planes(const ConstTensorView& x, const std::byte* data, kernels::SampleShape shape, Index count_before,
                    double* total);
  void sample_gradient_sums(const ConstTensorView& x, const OutputGradient& dy, Index n, kernels::SampleShape shape,
                            kernels::Mean mean, double* sums);
  /// Writes down the first of this rank's sums that is not finite.
  void note_non_finite(std::byte* body) const;

  Index channels_;
  int rank_;
  std::vector<double> sample_;     // one sample's sums, (3, C)
  std::vector<std::byte> masked_;  // one sample's masked gradient, if nobody wants to have it
};

}  // namespace syncbn::layer
