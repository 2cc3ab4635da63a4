// SPDX-License-Identifier: MIT
// What residual networks are made of.
#pragma once

#include <optional>

#include "convolution.hpp"
#include "network.hpp"
#include "norm.hpp"

namespace syncbn::train {

/// y = relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))
///
/// conv1 takes steps of `stride`; the shortcut is x itself or, where the shape changes, bn(1x1 convolution of x with
/// that stride). The last sum and both ReLUs are part of the batch norm layers' passes.
/// Source: He et al. 2015, arXiv:1512.03385, section 3.2 and option B of 3.3.
template <class T>
class ResidualBlock : public Module<T> {
 public:
  /// Makes its layers `name`.conv1, .bn1, .conv2, .bn2 (and .conv, .bn of the shortcut). Collective over the group of
  /// `make_norm`'s layers.
  ResidualBlock(const std::string& name, const ImageShape& input, Index outputs, Index stride,
                const NormFactory& make_norm);
  const Tensor<T>& forward(const Tensor<T>& x, const Pass& pass) override;
  const Tensor<T>& backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) override;
  void collect(Trainables<T>& trainables) override;

  const ImageShape& output_shape() const noexcept { return convolution2_.output_shape(); }

 private:
  struct Projection {
    Projection(const std::string& name, const ImageShape& input, Index outputs, Index stride,
               const NormFactory& make_norm);
    Convolution<T> convolution;
    Norm<T> norm;
  };

  Convolution<T> convolution1_;
  Norm<T> norm1_;
  Convolution<T> convolution2_;
  Norm<T> norm2_;
  std::optional<Projection> projection_;
  Tensor<T> dx_;
};

}  // namespace syncbn::train
