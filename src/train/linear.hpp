// SPDX-License-Identifier: MIT
#pragma once

#include "module.hpp"

namespace syncbn::train {

/// Where a linear layer stands: batch norm after a hidden layer takes a bias away, so it has none.
enum class LinearKind { hidden, output };

/// y = x W^T + b:  x (N, inputs), W (outputs, inputs), y (N, outputs). Inputs of any shape (C, H, W) are taken flat.
template <class T>
class Linear : public Module<T> {
 public:
  Linear(std::string name, Index inputs, Index outputs, LinearKind kind);
  const Tensor<T>& forward(const Tensor<T>& x, const Pass& pass) override;
  const Tensor<T>& backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) override;
  void collect(Trainables<T>& trainables) override;

 private:
  Index inputs_;
  Index outputs_;
  Buffer<T> weight_values_;
  Buffer<T> bias_values_;
  Parameter<T> weight_;
  Parameter<T> bias_;
  const Tensor<T>* x_ = nullptr;
  Tensor<T> y_;
  Tensor<T> dx_;
  // One unit at a time, aligned whatever the unit's place in the batch.
  Buffer<T> unit_in_;
  Buffer<T> unit_out_;
};

}  // namespace syncbn::train
