// SPDX-License-Identifier: MIT
// The backward pass as autograd wants it. In C++, because a torch.autograd.Function of Python's costs 30 us a step.
#include <torch/csrc/autograd/custom_function.h>

#include "torch/batch_norm.hpp"

namespace syncbn_torch {
namespace {

/// What is no variable of the function.
struct Rest {
  at::Tensor layer, cache;
  MaybeTensor running_mean, running_var, num_batches_tracked;
  int64_t kind;
};

struct Function : torch::autograd::Function<Function> {
  /// Without weight and bias x is the only variable.
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x, const MaybeTensor& weight,
                            const MaybeTensor& bias, const Rest& rest) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    context->save_for_backward({x, weight.value_or(at::Tensor())});
    context->saved_data["layer"] = rest.layer;
    context->saved_data["cache"] = rest.cache;
    return normalize(rest.layer, rest.cache, x, weight, bias, rest.running_mean, rest.running_var,
                     rest.num_batches_tracked, rest.kind);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "syncbn: a batch norm's gradient cannot be differentiated again (create_graph=True)");
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const bool wants_weight = saved[1].defined() && (context->needs_input_grad(1) || context->needs_input_grad(2));
    auto [dx, dweight, dbias] =
        syncbn_torch::backward(context->saved_data["layer"].toTensor(), context->saved_data["cache"].toTensor(),
                               saved[0], gradients[0], saved[1], context->needs_input_grad(0), wants_weight);
    return {dx, dweight, dbias, at::Tensor()};
  }
};

}  // namespace

at::Tensor normalize_with_gradient(const at::Tensor& layer, const at::Tensor& cache, const at::Tensor& x,
                                   const MaybeTensor& weight, const MaybeTensor& bias, const MaybeTensor& running_mean,
                                   const MaybeTensor& running_var, const MaybeTensor& num_batches_tracked,
                                   int64_t kind) {
  return Function::apply(x, weight, bias, Rest{layer, cache, running_mean, running_var, num_batches_tracked, kind});
}

}  // namespace syncbn_torch
