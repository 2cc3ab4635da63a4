// SPDX-License-Identifier: MIT
#include "torch/batch_norm.hpp"

#include <algorithm>
#include <cstring>

namespace syncbn_torch {
namespace {

int32_t type_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return SYNCBN_F32;
    case at::kDouble:
      return SYNCBN_F64;
    case at::kBFloat16:
      return SYNCBN_BF16;
    case at::kHalf:
      return SYNCBN_F16;
    default:
      return -1;  // the layer says so, on all ranks
  }
}

syncbn_tensor described(const at::Tensor& tensor) {
  if (!tensor.defined()) return {nullptr, SYNCBN_F32, 0, nullptr, nullptr};
  TORCH_CHECK(tensor.device().is_cpu(), "syncbn: wanted a CPU tensor, got one on ", tensor.device());
  return {tensor.data_ptr(), type_of(tensor), static_cast<int32_t>(tensor.dim()), tensor.sizes().data(),
          tensor.strides().data()};
}

/// dy in the memory format of x.
at::Tensor dense_as(const at::Tensor& tensor, const at::Tensor& x) {
  return tensor.strides() == x.strides() ? tensor : at::empty_like(x).copy_(tensor);
}

/// A parameter or buffer of a module, bound to the layer for one call; of 16 bits: by way of f32, rounded back.
class Bound {
 public:
  Bound(const Layer& layer, int32_t which, const MaybeTensor& tensor, bool is_written = false)
      : layer_(layer), which_(which) {
    if (!tensor.has_value() || !tensor->defined()) return;
    numbers_ = tensor->to(layer.parameter_type()).contiguous();
    if (is_written && !numbers_.is_same(*tensor)) rounded_to_ = *tensor;
    TORCH_CHECK(numbers_.device().is_cpu() && numbers_.numel() == layer.options.num_features, "syncbn: layer '",
                layer.options.name, "' has ", layer.options.num_features, " features, a parameter or buffer has ",
                numbers_.numel(), " numbers on ", numbers_.device());
    check(syncbn_layer_bind(layer_.layer, which_, numbers_.data_ptr()));
  }
  ~Bound() {
    if (numbers_.defined()) syncbn_layer_bind(layer_.layer, which_, nullptr);
  }
  Bound(const Bound&) = delete;
  Bound& operator=(const Bound&) = delete;

  /// After a call that went well.
  void round_back() {
    if (rounded_to_.defined()) rounded_to_.copy_(numbers_);
  }

 private:
  const Layer& layer_;
  int32_t which_;
  at::Tensor numbers_, rounded_to_;
};

at::Tensor forward_train(const at::Tensor& layer_handle, const at::Tensor& cache_handle, const at::Tensor& x,
                         const MaybeTensor& weight, const MaybeTensor& bias, const MaybeTensor& running_mean,
                         const MaybeTensor& running_var, const MaybeTensor& num_batches_tracked) {
  const Layer& layer = object_of<Layer>(layer_handle);
  const Cache& cache = object_of<Cache>(cache_handle);
  Bound gamma(layer, SYNCBN_GAMMA, weight);
  Bound beta(layer, SYNCBN_BETA, bias);
  Bound mean(layer, SYNCBN_RUNNING_MEAN, running_mean, true);
  Bound var(layer, SYNCBN_RUNNING_VAR, running_var, true);
  const bool counts = num_batches_tracked.has_value() && num_batches_tracked->defined();
  int64_t* batches = counts ? num_batches_tracked->data_ptr<int64_t>() : nullptr;
  if (counts) check(syncbn_layer_set_num_batches_tracked(layer.layer, *batches));

  at::Tensor y = at::empty_like(x);
  const syncbn_tensor from = described(x);
  const syncbn_tensor to = described(y);
  check(syncbn_layer_forward_train(layer.layer, &from, &to, nullptr, cache.cache));
  mean.round_back();
  var.round_back();
  if (counts) check(syncbn_layer_num_batches_tracked(layer.layer, batches));
  return y;
}

at::Tensor forward_frozen(const at::Tensor& layer_handle, const at::Tensor& cache_handle, const at::Tensor& x,
                          const MaybeTensor& weight, const MaybeTensor& bias, const at::Tensor& running_mean,
                          const at::Tensor& running_var) {
  const Layer& layer = object_of<Layer>(layer_handle);
  const Cache& cache = object_of<Cache>(cache_handle);
  Bound gamma(layer, SYNCBN_GAMMA, weight);
  Bound beta(layer, SYNCBN_BETA, bias);
  Bound mean(layer, SYNCBN_RUNNING_MEAN, running_mean);
  Bound var(layer, SYNCBN_RUNNING_VAR, running_var);
  at::Tensor y = at::empty_like(x);
  const syncbn_tensor from = described(x);
  const syncbn_tensor to = described(y);
  check(syncbn_layer_forward_frozen(layer.layer, &from, &to, nullptr, cache.cache));
  return y;
}

at::Tensor forward_again(const at::Tensor& layer_handle, const at::Tensor& cache_handle, const at::Tensor& x,
                         const MaybeTensor& weight, const MaybeTensor& bias) {
  const Layer& layer = object_of<Layer>(layer_handle);
  const Cache& cache = object_of<Cache>(cache_handle);
  Bound gamma(layer, SYNCBN_GAMMA, weight);
  Bound beta(layer, SYNCBN_BETA, bias);
  at::Tensor y = at::empty_like(x);
  const syncbn_tensor from = described(x);
  const syncbn_tensor to = described(y);
  check(syncbn_layer_forward_again(layer.layer, cache.cache, &from, &to, nullptr));
  return y;
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& layer_handle, const at::Tensor& cache_handle,
                                                        const at::Tensor& x, const at::Tensor& dy,
                                                        const MaybeTensor& weight, bool wants_dx,
                                                        bool wants_parameters) {
  const Layer& layer = object_of<Layer>(layer_handle);
  const Cache& cache = object_of<Cache>(cache_handle);
  Bound gamma(layer, SYNCBN_GAMMA, weight);
  const at::Tensor gradient = dense_as(dy, x);
  at::Tensor dx, dweight, dbias;
  if (wants_dx) dx = at::empty_like(x);
  if (wants_parameters) {
    dweight = at::empty({layer.options.num_features}, layer.parameter_type());
    dbias = at::empty_like(dweight);
  }
  const syncbn_tensor input = described(x);
  const syncbn_tensor from = described(gradient);
  const syncbn_tensor to = described(dx);
  check(syncbn_cache_set_input(cache.cache, &input, nullptr));
  check(syncbn_layer_backward(layer.layer, cache.cache, &from, wants_dx ? &to : nullptr, nullptr,
                              wants_parameters ? dweight.data_ptr() : nullptr,
                              wants_parameters ? dbias.data_ptr() : nullptr));
  if (wants_parameters && weight.has_value() && weight->scalar_type() != layer.parameter_type()) {
    dweight = dweight.to(weight->scalar_type());
    dbias = dbias.to(weight->scalar_type());
  }
  return {dx, dweight, dbias};
}

at::Tensor normalize(const at::Tensor& layer, const at::Tensor& cache, const at::Tensor& x, const MaybeTensor& weight,
                     const MaybeTensor& bias, const MaybeTensor& running_mean, const MaybeTensor& running_var,
                     const MaybeTensor& num_batches_tracked, int64_t kind) {
  switch (static_cast<Kind>(kind)) {
    case Kind::train:
      return forward_train(layer, cache, x, weight, bias, running_mean, running_var, num_batches_tracked);
    case Kind::frozen:
      return forward_frozen(layer, cache, x, weight, bias, running_mean.value(), running_var.value());
    case Kind::again:
      return forward_again(layer, cache, x, weight, bias);
  }
  TORCH_CHECK_VALUE(false, "syncbn: kind is ", kind, ", wanted 0 to 2");
}

at::Tensor statistics(const at::Tensor& cache, int64_t which) {
  const double* data = nullptr;
  int64_t size = 0;
  check(syncbn_cache_statistics(object_of<Cache>(cache).cache, static_cast<int32_t>(which), &data, &size));
  at::Tensor copy = at::empty({size}, at::kDouble);
  std::copy_n(data, size, copy.data_ptr<double>());
  return copy;
}

int64_t count(const at::Tensor& cache) {
  int64_t count = 0;
  check(syncbn_cache_count(object_of<Cache>(cache).cache, &count));
  return count;
}

int64_t fingerprint(const at::Tensor& x) {
  // Four chains, or each step would wait for the last one's multiplication.
  constexpr uint64_t kPrime = 0x9e3779b97f4a7c15ull;
  uint64_t chain[4] = {1, 2, 3, 4};
  for (const int64_t extent : x.sizes()) chain[0] = (chain[0] ^ static_cast<uint64_t>(extent)) * kPrime;
  const auto* bytes = static_cast<const char*>(x.data_ptr());
  const size_t size = x.nbytes();
  for (size_t i = 0; i < size; i += 32) {
    uint64_t words[4] = {};
    std::memcpy(words, bytes + i, std::min<size_t>(32, size - i));
    for (int k = 0; k < 4; ++k) {
      chain[k] = (chain[k] ^ words[k]) * kPrime;
      chain[k] ^= chain[k] >> 29;
    }
  }
  uint64_t result = 0;
  for (const uint64_t part : chain) result = (result ^ part) * kPrime;
  return static_cast<int64_t>(result ^ (result >> 32));
}

}  // namespace syncbn_torch
