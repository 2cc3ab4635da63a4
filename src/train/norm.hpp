// SPDX-License-Identifier: MIT
// syncbn::BatchNorm as a module of a network.
#pragma once

#include "module.hpp"

namespace syncbn::train {

/// All of the rank's units are one shard: batch norm is where the samples of a batch meet.
template <class T>
class Norm : public Module<T> {
 public:
  /// `layer` has parameters of type T, and gradients over the batch or over the rank as its options say.
  explicit Norm(BatchNorm layer);
  const Tensor<T>& forward(const Tensor<T>& x, const Pass& pass) override;
  const Tensor<T>& backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) override;
  void collect(Trainables<T>& trainables) override;

 private:
  BatchNorm layer_;
  BatchNormCache cache_;
  BatchNormGradients gradients_;
  Parameter<T> gamma_;
  Parameter<T> beta_;
  Tensor<T> y_;
  Tensor<T> dx_;
};

}  // namespace syncbn::train
