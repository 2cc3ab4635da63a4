// SPDX-License-Identifier: MIT
#include "residual_block.hpp"

#include <algorithm>
#include <functional>

namespace syncbn::train {

template <class T>
ResidualBlock<T>::Projection::Projection(const std::string& name, const ImageShape& input, Index outputs, Index stride,
                                         const NormFactory& make_norm)
    : convolution(name + ".conv", input, outputs, {1, stride}),
      norm(make_norm(outputs, name + ".bn", Activation::none)) {}

template <class T>
ResidualBlock<T>::ResidualBlock(const std::string& name, const ImageShape& input, Index outputs, Index stride,
                                const NormFactory& make_norm)
    : convolution1_(name + ".conv1", input, outputs, {3, stride}),
      norm1_(make_norm(outputs, name + ".bn1", Activation::relu)),
      convolution2_(name + ".conv2", convolution1_.output_shape(), outputs),
      norm2_(make_norm(outputs, name + ".bn2", Activation::relu)) {
  if (!(output_shape() == input)) projection_.emplace(name, input, outputs, stride, make_norm);
}

template <class T>
const Tensor<T>& ResidualBlock<T>::forward(const Tensor<T>& x, const Pass& pass) {
  const Tensor<T>& inner = norm1_.forward(convolution1_.forward(x, pass), pass);
  const Tensor<T>& outer = convolution2_.forward(inner, pass);
  if (!projection_) return norm2_.forward(outer, x, pass);
  const Tensor<T>& shortcut = projection_->norm.forward(projection_->convolution.forward(x, pass), pass);
  return norm2_.forward(outer, shortcut, pass);
}

template <class T>
const Tensor<T>& ResidualBlock<T>::backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) {
  const Tensor<T>& douter = norm2_.backward(dy, pass, InputGradient::wanted);
  const Tensor<T>& dinner = convolution2_.backward(douter, pass, InputGradient::wanted);
  const Tensor<T>& dx = convolution1_.backward(norm1_.backward(dinner, pass, InputGradient::wanted), pass, want);
  const Tensor<T>* dshortcut = &norm2_.dresidual();
  if (projection_) {
    const Tensor<T>& dprojected = projection_->norm.backward(*dshortcut, pass, InputGradient::wanted);
    dshortcut = &projection_->convolution.backward(dprojected, pass, want);
  }
  if (want == InputGradient::unwanted) return dx_;
  dx_.resize(dx.samples, dx.shape);
  std::transform(dx.values.begin(), dx.values.end(), dshortcut->values.begin(), dx_.values.begin(), std::plus<T>());
  return dx_;
}

template <class T>
void ResidualBlock<T>::collect(Trainables<T>& trainables) {
  convolution1_.collect(trainables);
  norm1_.collect(trainables);
  convolution2_.collect(trainables);
  norm2_.collect(trainables);
  if (!projection_) return;
  projection_->convolution.collect(trainables);
  projection_->norm.collect(trainables);
}

template class ResidualBlock<float>;
template class ResidualBlock<double>;

}  // namespace syncbn::train
