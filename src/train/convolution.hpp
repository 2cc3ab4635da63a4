// SPDX-License-Identifier: MIT
#pragma once

#include "module.hpp"

namespace syncbn::train {

/// The window of a convolution: side x side pixels, moved by `stride` pixels, over the image with side/2 zeros around it.
struct Window {
  Index side = 3;  ///< Odd.
  Index stride = 1;
};

/// Convolution without bias (batch norm follows and would take it away). With s the stride and r = side/2:
///
///   y[n,o,i,j] = sum over c, a, b of W[o,c,a,b] * x[n,c,s*i+a-r,s*j+b-r]
///
/// x is (N, C, H, W), y is (N, outputs, ceil(H/s), ceil(W/s)). One matrix product per sample on its unfolded image
/// (im2col), so no sample's bits depend on the others.
template <class T>
class Convolution : public Module<T> {
 public:
  Convolution(std::string name, ImageShape input, Index outputs, Window window = {});
  const Tensor<T>& forward(const Tensor<T>& x, const Pass& pass) override;
  const Tensor<T>& backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) override;
  void collect(Trainables<T>& trainables) override { trainables.parameters.push_back(&weight_); }

  const ImageShape& output_shape() const noexcept { return output_; }

 private:
  Index taps() const noexcept { return input_.channels * window_.side * window_.side; }

  void unfold(const T* image);  ///< -> columns_
  void fold(T* image) const;    ///< columns_ -> image, overlapping taps added

  ImageShape input_;
  Window window_;
  ImageShape output_;
  Buffer<T> weight_values_;  // (outputs, C, side, side)
  Parameter<T> weight_;
  const Tensor<T>* x_ = nullptr;
  Tensor<T> y_;
  Tensor<T> dx_;
  Buffer<T> columns_;   // (C * side * side, positions of y) of one sample
  Buffer<T> sample_y_;  // (outputs, positions of y) of one sample, aligned
};

}  // namespace syncbn::train
