// SPDX-License-Identifier: MIT
// syncbn::BatchNorm as a module of a network.
#pragma once

#include "module.hpp"

namespace syncbn::train {

/// y = activation(bn(x) + residual), as the layer's options say. All of the rank's units are one shard: batch norm is where
/// the samples of a batch meet.
template <class T>
class Norm : public Module<T> {
 public:
  /// `layer` has parameters of type T, and gradients over the batch or over the rank as its options say.
  explicit Norm(BatchNorm layer);
  /// Without a residual.
  const Tensor<T>& forward(const Tensor<T>& x, const Pass& pass) override;

  /// @param residual  Shape of x; backward() does not need it again.
  const Tensor<T>& forward(const Tensor<T>& x, const Tensor<T>& residual, const Pass& pass);

  const Tensor<T>& backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) override;
  void collect(Trainables<T>& trainables) override;

  /// After backward() of a pass with a residual: its gradient.
  const Tensor<T>& dresidual() const noexcept { return dresidual_; }

 private:
  const Tensor<T>& run_forward(const Tensor<T>& x, ConstTensorView residual, const Pass& pass);

  BatchNorm layer_;
  BatchNormCache cache_;
  BatchNormGradients gradients_;
  Parameter<T> gamma_;
  Parameter<T> beta_;
  Tensor<T> y_;
  Tensor<T> dx_;
  bool has_residual_ = false;
  Tensor<T> dresidual_;
};

}  // namespace syncbn::train
