// SPDX-License-Identifier: MIT
// Modules without weights: ReLU and pooling. Sample by sample.
#pragma once

#include "module.hpp"

namespace syncbn::train {

/// y = max(x, 0); the derivative at 0 is 0.
template <class T>
class Relu : public Module<T> {
 public:
  const Tensor<T>& forward(const Tensor<T>& x, const Pass& pass) override;
  const Tensor<T>& backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) override;

 private:
  Tensor<T> y_;
  Tensor<T> dx_;
};

/// What pooling over 2 x 2 windows leaves. An odd last row or column is left out.
inline ImageShape pooled(const ImageShape& x) { return {x.channels, x.height / 2, x.width / 2}; }

/// Largest of each 2 x 2 window; the first one counts if several are equal.
template <class T>
class MaxPool : public Module<T> {
 public:
  const Tensor<T>& forward(const Tensor<T>& x, const Pass& pass) override;
  const Tensor<T>& backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) override;

 private:
  ImageShape x_shape_;
  std::vector<std::int32_t> taken_;  // of each y: which position of its plane
  Tensor<T> y_;
  Tensor<T> dx_;
};

/// Mean of each 2 x 2 window.
template <class T>
class AveragePool : public Module<T> {
 public:
  const Tensor<T>& forward(const Tensor<T>& x, const Pass& pass) override;
  const Tensor<T>& backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) override;

 private:
  ImageShape x_shape_;
  Tensor<T> y_;
  Tensor<T> dx_;
};

/// Mean of each channel over all positions: (N, C, H, W) -> (N, C).
template <class T>
class GlobalAveragePool : public Module<T> {
 public:
  const Tensor<T>& forward(const Tensor<T>& x, const Pass& pass) override;
  const Tensor<T>& backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) override;

 private:
  ImageShape x_shape_;
  Tensor<T> y_;
  Tensor<T> dx_;
};

}  // namespace syncbn::train
