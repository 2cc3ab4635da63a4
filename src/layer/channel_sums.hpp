// SPDX-License-Identifier: MIT
// The seam between the layer and a way of summing: what a Reduction must be able to do.
#pragma once

#include <cstddef>
#include <optional>

#include "comm/transport.hpp"
#include "kernels/kernels.hpp"
#include "syncbn/tensor_view.hpp"

namespace syncbn::layer {

/// The first value that is not finite: the lowest rank's, and there the lowest channel's. Rank -1: not known.
struct NonFinite {
  int rank;
  Index channel;
};

/// Channels [begin, end).
struct ChannelRange {
  Index begin, end;
};

/// dy as the sums take it.
struct OutputGradient {
  ConstTensorView dy;
  ConstTensorView y;  ///< Behind a ReLU: its output; dy counts where y > 0. Else none.
  TensorView masked;  ///< Then: where the dy that counts is written down; may be dy; none: nowhere.

  bool is_masked() const { return !y.is_none(); }
  /// What the element pass reads.
  ConstTensorView effective() const { return is_masked() && !masked.is_none() ? ConstTensorView(masked) : dy; }
};

/// Per-channel sums over samples, as bytes that ranks can merge. A body is memory of body_bytes(); it belongs to the
/// layer's message, behind the message's header.
///
/// All sizes and results depend on nothing but what all ranks share, so finish_* give every rank the same numbers.
class ChannelSums {
 public:
  virtual ~ChannelSums() = default;

  /// Bytes of one pass's body; the same for both passes.
  virtual std::size_t body_bytes() const = 0;

  /// body <- the moments of this rank's samples of x; x may be empty.
  virtual void add_samples(const ConstTensorView& x, std::byte* body) = 0;
  /// mean, what it lost in rounding, and biased var, (C) each, of the `count` > 0 values merged into the body.
  virtual void finish_moments(const std::byte* body, Index count, double* mean, double* mean_lo, double* var) = 0;

  /// body <- sum(dy) and sum(dy*(x-mean)) of this rank's samples.
  virtual void add_gradients(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean,
                             std::byte* body) = 0;

  /// Merges messages of either pass. (A rank that contributes nothing may not know which it is.)
  virtual comm::Merge merge() const = 0;
  /// body <- the sums of nothing, whatever pass it is.
  virtual void add_nothing(std::byte* body) = 0;

  virtual void finish_gradients(const std::byte* body, double* sum_dy, double* sum_dy_xmu) = 0;

  /// What is not finite in a merged body of either pass, if anything.
  virtual std::optional<NonFinite> non_finite(const std::byte* body) const = 0;
  /// Have more samples been merged into the body than it can count?
  virtual bool has_overflowed(const std::byte* body) const = 0;
};

}  // namespace syncbn::layer
