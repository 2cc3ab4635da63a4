// SPDX-License-Identifier: MIT
#include "linear.hpp"

#include <algorithm>

#include "gemm.hpp"
#include "initial_bound.hpp"

namespace syncbn::train {

namespace {

/// Copies a unit's rows to an aligned buffer.
template <class T>
ConstMatrix<T> load(const Tensor<T>& tensor, const SampleRange& unit, Buffer<T>& buffer) {
  const Index columns = tensor.shape.size();
  buffer.assign(tensor.sample(unit.first), tensor.sample(unit.first) + unit.count * columns);
  return {buffer.data(), unit.count, columns};
}

}  // namespace

template <class T>
Linear<T>::Linear(std::string name, Index inputs, Index outputs, LinearKind kind)
    : inputs_(inputs),
      outputs_(outputs),
      weight_values_(static_cast<std::size_t>(inputs * outputs)),
      bias_values_(static_cast<std::size_t>(kind == LinearKind::output ? outputs : 0)) {
  weight_.name = name + ".weight";
  weight_.values = weight_values_.data();
  weight_.size = inputs * outputs;
  weight_.initial_bound = kind == LinearKind::hidden ? relu_bound(inputs) : output_bound(inputs);
  weight_.decays = true;
  bias_.name = name + ".bias";
  bias_.values = bias_values_.data();
  bias_.size = static_cast<Index>(bias_values_.size());
}

template <class T>
const Tensor<T>& Linear<T>::forward(const Tensor<T>& x, const Pass& pass) {
  x_ = &x;
  y_.resize(x.samples, {outputs_, 1, 1});
  const ConstMatrix<T> weight{weight_values_.data(), outputs_, inputs_};
  for (const SampleRange& unit : pass.units) {
    if (unit.count == 0) continue;
    unit_out_.resize(static_cast<std::size_t>(unit.count * outputs_));
    multiply_nt(load(x, unit, unit_in_), weight, unit_out_.data());
    for (Index n = 0; n < unit.count; ++n) {
      const T* from = unit_out_.data() + n * outputs_;
      T* to = y_.sample(unit.first + n);
      for (Index o = 0; o < outputs_; ++o) to[o] = bias_.size ? from[o] + bias_values_[o] : from[o];
    }
  }
  return y_;
}

template <class T>
const Tensor<T>& Linear<T>::backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) {
  const auto unit_count = static_cast<Index>(pass.units.size());
  weight_.set_slots(unit_count);
  bias_.set_slots(unit_count);
  if (want == InputGradient::wanted) dx_.resize(x_->samples, x_->shape);
  const ConstMatrix<T> weight{weight_values_.data(), outputs_, inputs_};
  for (Index u = 0; u < unit_count; ++u) {
    const SampleRange& unit = pass.units[static_cast<std::size_t>(u)];
    std::fill_n(weight_.gradient(u), weight_.size, T(0));
    std::fill_n(bias_.gradient(u), bias_.size, T(0));
    if (unit.count == 0) continue;

    const ConstMatrix<T> unit_dy = load(dy, unit, unit_out_);
    multiply_tn(unit_dy, load(*x_, unit, unit_in_), weight_.gradient(u));
    for (Index n = 0; n < unit.count; ++n) {
      for (Index o = 0; o < bias_.size; ++o) bias_.gradient(u)[o] += unit_dy.data[n * outputs_ + o];
    }
    if (want == InputGradient::wanted) {
      multiply(unit_dy, weight, unit_in_.data());  // x of the unit is no longer needed
      std::copy_n(unit_in_.data(), unit.count * inputs_, dx_.sample(unit.first));
    }
  }
  return dx_;
}

template <class T>
void Linear<T>::collect(Trainables<T>& trainables) {
  trainables.parameters.push_back(&weight_);
  if (bias_.size > 0) trainables.parameters.push_back(&bias_);
}

template class Linear<float>;
template class Linear<double>;

}  // namespace syncbn::train
