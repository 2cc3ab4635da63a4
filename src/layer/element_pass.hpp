// SPDX-License-Identifier: MIT
// The passes that write tensors: coefficients per channel, then the kernels, on all threads.
#pragma once

#include <vector>

#include "kernels/kernels.hpp"
#include "layer/channel_sums.hpp"
#include "layer/state.hpp"
#include "syncbn/batch_norm.hpp"

namespace syncbn::layer {

/// sum(dy) and sum(dy*(x-mean)), (C) each.
struct GradientSums {
  explicit GradientSums(Index channels) : dy(static_cast<std::size_t>(channels)), dy_xmu(dy) {}
  std::vector<double> dy, dy_xmu;
};

/// Holds the coefficients, so that a step allocates nothing.
class ElementPass {
 public:
  explicit ElementPass(const BatchNormOptions& options)
      : options_(options),
        scale_(static_cast<std::size_t>(options.num_features)),
        shift_(scale_),
        slope_(scale_),
        offset_(scale_) {}

  /// y = activation(gamma * (x - mean) * invstd + beta + residual)
  void normalize(const ConstTensorView& x, const TensorView& y, const ConstTensorView& residual,
                 const BatchNormCache& statistics, const State& state);

  /// masked = dy where y > 0.
  void mask_gradient(const ConstTensorView& dy, const ConstTensorView& y, const TensorView& masked);

  /// dx = gamma*invstd * ( dy - mean(dy) - xhat * mean(dy*xhat) )
  void input_gradient(const BatchNormCache& cache, const GradientSums& sums, const ConstTensorView& dy,
                      const TensorView& dx, const State& state);
  /// dx = gamma*invstd * dy: the gradient through constant statistics.
  void frozen_input_gradient(const BatchNormCache& cache, const ConstTensorView& dy, const TensorView& dx,
                             const State& state);

 private:
  bool has_relu() const { return options_.activation == Activation::relu; }
  void set_scale(const BatchNormCache& statistics, const State& state);
  void set_forward(const BatchNormCache& statistics, const State& state);
  void set_backward(const BatchNormCache& cache, const GradientSums& sums, DataType type, const State& state);
  kernels::ForwardCoefficients forward_from(const BatchNormCache& statistics, Index c) const;
  kernels::BackwardCoefficients backward_from(const BatchNormCache& cache, Index c) const;
  void fill_forward_nan(const BatchNormCache& statistics, const TensorView& y) const;
  void fill_backward_nan(const GradientSums& sums, const TensorView& dx) const;

  const BatchNormOptions& options_;
  std::vector<double> scale_, shift_;   // gamma*invstd, beta
  std::vector<double> slope_, offset_;  // kernels::BackwardCoefficients
};

}  // namespace syncbn::layer
