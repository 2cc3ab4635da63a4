// SPDX-License-Identifier: MIT
#include "capi/options.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "capi/status.hpp"

namespace syncbn::capi {
namespace {

/// Up to where the first release's structs went; a caller built against it does not have what came later.
constexpr std::size_t kFirstCommunicatorOptions =
    offsetof(syncbn_communicator_options, exchange) + sizeof(std::int32_t);
constexpr std::size_t kFirstLayerOptions = offsetof(syncbn_layer_options, name) + sizeof(const char*);

/// The caller's struct, with this library's defaults for what the caller's header did not have yet.
template <class Options>
Options completed(const Options& given, std::size_t least, void (*init)(Options*, std::size_t), const char* name) {
  if (given.struct_size < least || given.struct_size > sizeof(Options)) {
    throw ArgumentError(std::string("[") + name + "] struct_size is " + std::to_string(given.struct_size) +
                        ", wanted " + std::to_string(least) + " to " + std::to_string(sizeof(Options)) + ": was " +
                        name + "_init called, and is the library as new as the header?");
  }
  Options options;
  init(&options, sizeof options);
  std::memcpy(&options, &given, given.struct_size);
  return options;
}

template <class Choice>
Choice choice(std::int32_t value, std::int32_t most, const char* name) {
  if (value < 0 || value > most) {
    throw ArgumentError(std::string("[syncbn] ") + name + " is " + std::to_string(value) + ", wanted 0 to " +
                        std::to_string(most));
  }
  return static_cast<Choice>(value);
}

bool flag(std::int32_t value, const char* name) { return choice<std::int32_t>(value, 1, name) != 0; }

}  // namespace

CommunicatorOptions options_of(const syncbn_communicator_options* given) {
  CommunicatorOptions options;
  if (given == nullptr) return options;
  const auto c =
      completed(*given, kFirstCommunicatorOptions, syncbn_communicator_options_init, "syncbn_communicator_options");
  if (c.deadline_seconds != 0) options.deadline_seconds = c.deadline_seconds;
  options.exchange = choice<Exchange>(c.exchange, 2, "exchange");
  return options;
}

BatchNormOptions options_of(const syncbn_layer_options& given) {
  const auto c = completed(given, kFirstLayerOptions, syncbn_layer_options_init, "syncbn_layer_options");
  BatchNormOptions options;
  options.num_features = c.num_features;
  options.eps = c.eps;
  options.momentum = c.momentum;
  if (flag(c.cumulative_average, "cumulative_average")) options.momentum.reset();
  options.affine = flag(c.affine, "affine");
  options.track_running_stats = flag(c.track_running_stats, "track_running_stats");
  options.unbiased_running_var = flag(c.unbiased_running_var, "unbiased_running_var");
  options.activation = static_cast<Activation>(c.activation);
  options.parameter_gradients = static_cast<ParameterGradients>(c.parameter_gradients);
  options.parameter_type = choice<DataType>(c.parameter_type, SYNCBN_F16, "parameter_type");
  options.reduction = static_cast<Reduction>(c.reduction);
  options.non_finite = static_cast<NonFinitePolicy>(c.non_finite);
  options.threads = c.threads;
  if (c.name != nullptr) options.name = c.name;
  return options;
}

TensorView view_of(const syncbn_tensor* tensor) noexcept {
  TensorView view;
  if (tensor == nullptr || (tensor->data == nullptr && tensor->ndim == 0)) return view;
  view.data = tensor->data;
  if (tensor->shape == nullptr || tensor->ndim < 2) {
    view.shape.defect = ShapeDefect::too_few_dimensions;
  } else {
    view.shape = TensorShape::from_strides(tensor->shape, tensor->strides, static_cast<std::size_t>(tensor->ndim));
  }
  if (tensor->dtype < SYNCBN_F32 || tensor->dtype > SYNCBN_F16) {
    view.shape.defect = ShapeDefect::unknown_type;
  } else {
    view.type = static_cast<DataType>(tensor->dtype);
  }
  return view;
}

static_assert(static_cast<int>(DataType::f32) == SYNCBN_F32 && static_cast<int>(DataType::f64) == SYNCBN_F64 &&
              static_cast<int>(DataType::bf16) == SYNCBN_BF16 && static_cast<int>(DataType::f16) == SYNCBN_F16);

}  // namespace syncbn::capi

extern "C" {

void syncbn_communicator_options_init(syncbn_communicator_options* options, size_t struct_size) {
  const syncbn_communicator_options defaults = {struct_size, 0.0, SYNCBN_EXCHANGE_AUTOMATIC};
  if (options != nullptr) std::memcpy(options, &defaults, std::min(struct_size, sizeof defaults));
}

void syncbn_layer_options_init(syncbn_layer_options* options, size_t struct_size) {
  const syncbn::BatchNormOptions from;
  syncbn_layer_options defaults;
  std::memset(&defaults, 0, sizeof defaults);
  defaults.struct_size = struct_size;
  defaults.eps = from.eps;
  defaults.momentum = from.momentum.value_or(0.0);
  defaults.affine = from.affine;
  defaults.track_running_stats = from.track_running_stats;
  defaults.unbiased_running_var = from.unbiased_running_var;
  defaults.activation = static_cast<int32_t>(from.activation);
  defaults.parameter_gradients = static_cast<int32_t>(from.parameter_gradients);
  defaults.parameter_type = static_cast<int32_t>(from.parameter_type);
  defaults.reduction = static_cast<int32_t>(from.reduction);
  defaults.non_finite = static_cast<int32_t>(from.non_finite);
  defaults.threads = from.threads;
  defaults.name = "bn";
  if (options != nullptr) std::memcpy(options, &defaults, std::min(struct_size, sizeof defaults));
}

}  // extern "C"
