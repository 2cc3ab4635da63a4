// SPDX-License-Identifier: MIT
// A module for trainers in C++ with LibTorch, on CPUs. Header-only, over the C interface: link syncbn::syncbn and LibTorch.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include <torch/torch.h>

#include "syncbn/syncbn.h"

namespace syncbn::libtorch {

/// Throws c10::Error with the library's sentence unless all is well.
inline void check(syncbn_status status) { TORCH_CHECK(status == SYNCBN_OK, syncbn_last_error()); }

/// The processes that share statistics. A value: copies share the same group, which goes with the last of them.
class Group {
 public:
  /// This process alone.
  Group() { check(syncbn_communicator_self(&made_)), own(); }
  /// All ranks of an MPI communicator: `Group(MPI_Comm_c2f(MPI_COMM_WORLD))`. Collective.
  explicit Group(int32_t fortran_communicator) {
    check(syncbn_communicator_create(fortran_communicator, nullptr, &made_)), own();
  }
  syncbn_communicator* get() const { return shared_.get(); }

 private:
  void own() { shared_ = {made_, syncbn_communicator_destroy}; }
  syncbn_communicator* made_ = nullptr;
  std::shared_ptr<syncbn_communicator> shared_;
};

struct SyncBatchNormOptions {
  SyncBatchNormOptions(int64_t features) : num_features(features) {}  // NOLINT: as torch::nn's options, implicit
  int64_t num_features;
  double eps = 1e-5;
  double momentum = 0.1;
  std::string name = "bn";  ///< Stands in errors.
};

namespace detail {

inline syncbn_tensor described(const torch::Tensor& tensor) {
  TORCH_CHECK(tensor.device().is_cpu(), "syncbn: wanted a CPU tensor");
  const auto type = tensor.scalar_type();
  const int32_t code = type == torch::kFloat      ? SYNCBN_F32
                       : type == torch::kDouble   ? SYNCBN_F64
                       : type == torch::kBFloat16 ? SYNCBN_BF16
                       : type == torch::kHalf     ? SYNCBN_F16
                                                  : -1;
  return {tensor.data_ptr(), code, static_cast<int32_t>(tensor.dim()), tensor.sizes().data(), tensor.strides().data()};
}

/// A cache, and the layer that it must not outlive, in a tensor of no use but to be kept by autograd.
struct Pass {
  explicit Pass(std::shared_ptr<syncbn_layer> of) : layer(std::move(of)) { check(syncbn_cache_create(&cache)); }
  ~Pass() { syncbn_cache_destroy(cache); }
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;
  std::shared_ptr<syncbn_layer> layer;
  syncbn_cache* cache = nullptr;
};

struct Function : torch::autograd::Function<Function> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& x,
                               const torch::Tensor& weight, const torch::Tensor& /*bias*/,
                               const std::shared_ptr<syncbn_layer>& layer, bool trains) {
    auto* pass = new Pass(layer);
    const torch::Tensor kept = torch::from_blob(
        pass, {1}, [pass](void*) { delete pass; }, torch::kByte);
    torch::Tensor y = torch::empty_like(x);
    const syncbn_tensor from = described(x);
    const syncbn_tensor to = described(y);
    check(trains ? syncbn_layer_forward_train(layer.get(), &from, &to, nullptr, pass->cache)
                 : syncbn_layer_forward_frozen(layer.get(), &from, &to, nullptr, pass->cache));
    context->save_for_backward({x, weight});
    context->saved_data["pass"] = kept;
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const torch::Tensor& x = saved[0];
    const torch::Tensor kept = context->saved_data["pass"].toTensor();
    auto* pass = static_cast<Pass*>(kept.data_ptr());
    const torch::Tensor dy =
        gradients[0].strides() == x.strides() ? gradients[0] : torch::empty_like(x).copy_(gradients[0]);
    torch::Tensor dx = torch::empty_like(x);
    torch::Tensor dweight = torch::empty_like(saved[1]);
    torch::Tensor dbias = torch::empty_like(saved[1]);
    const syncbn_tensor input = described(x);
    const syncbn_tensor from = described(dy);
    const syncbn_tensor to = described(dx);
    check(syncbn_cache_set_input(pass->cache, &input, nullptr));
    check(syncbn_layer_backward(pass->layer.get(), pass->cache, &from, &to, nullptr, dweight.data_ptr(),
                                dbias.data_ptr()));
    return {dx, dweight, dbias, torch::Tensor(), torch::Tensor()};
  }
};

}  // namespace detail

/// torch::nn::BatchNorm1d, 2d and 3d over the batches of all processes of a group, with their parameters, buffers and names. Gradients
/// of weight and bias are this process's sums: reduce them with all others. In training, every process calls forward and backward
/// equally often, in the same order; batches may differ in size or be empty. f32 and f64 modules; activations also bf16, f16.
class SyncBatchNormImpl : public torch::nn::Module {
 public:
  explicit SyncBatchNormImpl(const SyncBatchNormOptions& options, Group group = Group(),
                             torch::Dtype type = torch::kFloat)
      : group_(std::move(group)) {
    weight = register_parameter("weight", torch::ones(options.num_features, type));
    bias = register_parameter("bias", torch::zeros(options.num_features, type));
    running_mean = register_buffer("running_mean", torch::zeros(options.num_features, type));
    running_var = register_buffer("running_var", torch::ones(options.num_features, type));
    num_batches_tracked = register_buffer("num_batches_tracked", torch::zeros({}, torch::kLong));

    syncbn_layer_options made_with;
    syncbn_layer_options_init(&made_with, sizeof made_with);
    made_with.num_features = options.num_features;
    made_with.eps = options.eps;
    made_with.momentum = options.momentum;
    made_with.parameter_type = type == torch::kDouble ? SYNCBN_F64 : SYNCBN_F32;
    made_with.parameter_gradients = SYNCBN_GRADIENTS_LOCAL;
    made_with.threads = torch::get_num_threads();
    made_with.name = options.name.c_str();
    syncbn_layer* layer = nullptr;
    check(syncbn_layer_create(&made_with, group_.get(), &layer));
    layer_ = {layer, syncbn_layer_destroy};
  }

  torch::Tensor forward(const torch::Tensor& input) {
    const torch::Tensor x =
        input.dim() < 2 || input.is_contiguous() || input.movedim(1, -1).is_contiguous() ? input : input.contiguous();
    const std::pair<int32_t, torch::Tensor*> state[] = {{SYNCBN_GAMMA, &weight},
                                                        {SYNCBN_BETA, &bias},
                                                        {SYNCBN_RUNNING_MEAN, &running_mean},
                                                        {SYNCBN_RUNNING_VAR, &running_var}};
    for (const auto& [which, tensor] : state) {  // an optimizer or a checkpoint may have put others there
      check(syncbn_layer_bind(layer_.get(), which, tensor->data_ptr()));
    }
    int64_t* batches = num_batches_tracked.data_ptr<int64_t>();
    check(syncbn_layer_set_num_batches_tracked(layer_.get(), *batches));
    torch::Tensor y = detail::Function::apply(x, weight, bias, layer_, is_training());
    check(syncbn_layer_num_batches_tracked(layer_.get(), batches));
    return y;
  }

  torch::Tensor weight, bias, running_mean, running_var, num_batches_tracked;

 private:
  Group group_;
  std::shared_ptr<syncbn_layer> layer_;
};
TORCH_MODULE(SyncBatchNorm);

}  // namespace syncbn::libtorch
