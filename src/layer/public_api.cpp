// SPDX-License-Identifier: MIT
// BatchNorm's public functions, each a line or two over the layer in impl.hpp.
#include <string>
#include <utility>

#include "layer/check.hpp"
#include "layer/impl.hpp"

namespace syncbn {

BatchNorm::BatchNorm(const BatchNormOptions& options) : BatchNorm(options, Communicator()) {}
BatchNorm::BatchNorm(const BatchNormOptions& options, const Communicator& communicator)
    : impl_(std::make_unique<Impl>(options, communicator)) {}
BatchNorm::~BatchNorm() = default;
BatchNorm::BatchNorm(BatchNorm&&) noexcept = default;
BatchNorm& BatchNorm::operator=(BatchNorm&&) noexcept = default;

BatchNormCache BatchNorm::forward_train(ConstTensorView x, TensorView y, ConstTensorView residual) {
  BatchNormCache cache;
  forward_train(x, y, cache, residual);
  return cache;
}

void BatchNorm::forward_train(ConstTensorView x, TensorView y, BatchNormCache& cache, ConstTensorView residual) {
  impl_->begin_forward(x, y, residual, cache);
  impl_->finish_forward();
}

void BatchNorm::begin_forward_train(ConstTensorView x, TensorView y, BatchNormCache& cache, ConstTensorView residual) {
  impl_->begin_forward(x, y, residual, cache);
}

void BatchNorm::finish_forward_train() { impl_->finish_forward(); }

void BatchNorm::forward_eval(ConstTensorView x, TensorView y, ConstTensorView residual) const {
  impl_->forward_eval(x, y, residual);
}

BatchNormCache BatchNorm::forward_frozen(ConstTensorView x, TensorView y, ConstTensorView residual) const {
  BatchNormCache cache;
  forward_frozen(x, y, cache, residual);
  return cache;
}

void BatchNorm::forward_frozen(ConstTensorView x, TensorView y, BatchNormCache& cache, ConstTensorView residual) const {
  if (!impl_->options.track_running_stats) {
    throw StateError(layer::where(impl_->options, "frozen forward") + " the layer does not track running statistics");
  }
  impl_->forward_with_running_stats(x, y, residual, "frozen forward", cache);
}

void BatchNorm::forward_again(BatchNormCache& cache, ConstTensorView x, TensorView y, ConstTensorView residual) const {
  impl_->forward_again(cache, x, y, residual);
}

BatchNormGradients BatchNorm::backward(const BatchNormCache& cache, ConstTensorView dy, TensorView dx,
                                       TensorView dresidual) {
  BatchNormGradients gradients;
  backward(cache, dy, dx, gradients, dresidual);
  return gradients;
}

void BatchNorm::backward(const BatchNormCache& cache, ConstTensorView dy, TensorView dx, BatchNormGradients& gradients,
                         TensorView dresidual) {
  impl_->begin_backward(cache, dy, dx, dresidual, &gradients);
  impl_->finish_backward();
}

void BatchNorm::backward_input(const BatchNormCache& cache, ConstTensorView dy, TensorView dx, TensorView dresidual) {
  impl_->begin_backward(cache, dy, dx, dresidual, nullptr);
  impl_->finish_backward();
}

void BatchNorm::begin_backward(const BatchNormCache& cache, ConstTensorView dy, TensorView dx,
                               BatchNormGradients& gradients, TensorView dresidual) {
  impl_->begin_backward(cache, dy, dx, dresidual, &gradients);
}

void BatchNorm::begin_backward_input(const BatchNormCache& cache, ConstTensorView dy, TensorView dx,
                                     TensorView dresidual) {
  impl_->begin_backward(cache, dy, dx, dresidual, nullptr);
}

void BatchNorm::finish_backward() { impl_->finish_backward(); }

bool BatchNorm::progress() { return impl_->progress(); }

const BatchNormOptions& BatchNorm::options() const noexcept { return impl_->options; }
const Communicator& BatchNorm::communicator() const noexcept { return impl_->communicator; }
ChannelVector& BatchNorm::gamma() noexcept { return impl_->state.gamma; }
ChannelVector& BatchNorm::beta() noexcept { return impl_->state.beta; }
ChannelVector& BatchNorm::running_mean() noexcept { return impl_->state.running_mean; }
ChannelVector& BatchNorm::running_var() noexcept { return impl_->state.running_var; }
const ChannelVector& BatchNorm::gamma() const noexcept { return impl_->state.gamma; }
const ChannelVector& BatchNorm::beta() const noexcept { return impl_->state.beta; }
const ChannelVector& BatchNorm::running_mean() const noexcept { return impl_->state.running_mean; }
const ChannelVector& BatchNorm::running_var() const noexcept { return impl_->state.running_var; }
const LayerCosts& BatchNorm::costs() const noexcept { return impl_->costs.costs(); }
void BatchNorm::reset_costs() noexcept { impl_->costs.reset(); }
Index BatchNorm::num_batches_tracked() const noexcept { return impl_->state.num_batches_tracked; }
void BatchNorm::set_num_batches_tracked(Index count) {
  if (count < 0) {
    throw StateError(layer::where(impl_->options, "set_num_batches_tracked") + " count is " + std::to_string(count) +
                     ", it must be at least 0");
  }
  impl_->state.num_batches_tracked = count;
}

}  // namespace syncbn
