// SPDX-License-Identifier: MIT
#include "norm.hpp"

#include <algorithm>

namespace syncbn::train {

template <class T>
Norm<T>::Norm(BatchNorm layer) : layer_(std::move(layer)) {
  const bool is_global = layer_.options().parameter_gradients == ParameterGradients::global;
  for (Parameter<T>* parameter : {&gamma_, &beta_}) {
    ChannelVector& values = parameter == &gamma_ ? layer_.gamma() : layer_.beta();
    parameter->name = layer_.options().name + (parameter == &gamma_ ? ".gamma" : ".beta");
    parameter->values = values.template data<T>();
    parameter->size = values.size();
    parameter->scope = is_global ? GradientScope::global : GradientScope::rank;
    parameter->set_slots(1);
  }
}

template <class T>
const Tensor<T>& Norm<T>::forward(const Tensor<T>& x, const Pass& pass) {
  has_residual_ = false;
  return run_forward(x, {}, pass);
}

template <class T>
const Tensor<T>& Norm<T>::forward(const Tensor<T>& x, const Tensor<T>& residual, const Pass& pass) {
  has_residual_ = true;
  return run_forward(x, residual.view(), pass);
}

template <class T>
const Tensor<T>& Norm<T>::run_forward(const Tensor<T>& x, ConstTensorView residual, const Pass& pass) {
  y_.resize(x.samples, x.shape);
  if (pass.mode == Mode::train) {
    layer_.forward_train(x.view(), y_.view(), cache_, residual);
  } else {
    layer_.forward_eval(x.view(), y_.view(), residual);
  }
  return y_;
}

template <class T>
const Tensor<T>& Norm<T>::backward(const Tensor<T>& dy, const Pass&, InputGradient want) {
  dx_.resize(dy.samples, dy.shape);
  if (has_residual_) dresidual_.resize(dy.samples, dy.shape);
  layer_.backward(cache_, dy.view(), want == InputGradient::wanted ? dx_.view() : TensorView(), gradients_,
                  has_residual_ ? dresidual_.view() : TensorView());
  std::copy_n(gradients_.dgamma.template data<T>(), gamma_.size, gamma_.gradient(0));
  std::copy_n(gradients_.dbeta.template data<T>(), beta_.size, beta_.gradient(0));
  return dx_;
}

template <class T>
void Norm<T>::collect(Trainables<T>& trainables) {
  trainables.parameters.push_back(&gamma_);
  trainables.parameters.push_back(&beta_);
  trainables.norms.push_back(&layer_);
}

template class Norm<float>;
template class Norm<double>;

}  // namespace syncbn::train
