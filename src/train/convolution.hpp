// SPDX-License-Identifier: MIT
#pragma once

#include "module.hpp"

namespace syncbn::train {

/// 3 x 3 convolution, stride 1, zeros around the image, no bias (batch norm follows and would take it away).
///
///   y[n,o,i,j] = sum over c, a, b of W[o,c,a,b] * x[n,c,i+a-1,j+b-1]
///
/// One matrix product per sample on its unfolded image (im2col), so no sample's bits depend on the others.
template <class T>
class Convolution : public Module<T> {
 public:
  Convolution(std::string name, ImageShape input, Index outputs);
  const Tensor<T>& forward(const Tensor<T>& x, const Pass& pass) override;
  const Tensor<T>& backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) override;
  void collect(Trainables<T>& trainables) override { trainables.parameters.push_back(&weight_); }

  ImageShape output_shape() const noexcept { return {outputs_, input_.height, input_.width}; }

 private:
  static constexpr Index kSide = 3;
  Index taps() const noexcept { return input_.channels * kSide * kSide; }

  void unfold(const T* image);  ///< -> columns_
  void fold(T* image) const;    ///< columns_ -> image, overlapping taps added

  ImageShape input_;
  Index outputs_;
  Buffer<T> weight_values_;  // (outputs, C, 3, 3)
  Parameter<T> weight_;
  const Tensor<T>* x_ = nullptr;
  Tensor<T> y_;
  Tensor<T> dx_;
  Buffer<T> columns_;   // (C * 9, H * W) of one sample
  Buffer<T> sample_y_;  // (outputs, H * W) of one sample, aligned
};

}  // namespace syncbn::train
