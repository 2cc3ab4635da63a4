// SPDX-License-Identifier: MIT
#include "layer/check.hpp"

#include <cmath>
#include <cstdlib>

#include "kernels/kernels.hpp"

namespace syncbn::layer {
namespace {

constexpr Index kMostFeatures =
    Index{1} << 24;  // 2^24 channels of five bins are a message of 1.4 GB; MPI counts to 2^31
constexpr int kMostThreads = 1024;

/// Where a check is made; put into words only if it fails, because a step that goes well allocates nothing.
struct Place {
  const BatchNormOptions& options;
  const char* pass;
};

std::optional<Problem> shape_problem(const Place& place, const std::string& text) {
  return Problem{ErrorCode::shape, where(place.options, place.pass) + " " + text};
}

std::string text_of(const TensorShape& shape) {
  const std::string n = std::to_string(shape.samples);
  const std::string c = std::to_string(shape.channels);
  const std::string s = std::to_string(shape.positions);
  return shape.layout == Layout::channels_last ? "(N " + n + ", S " + s + ", C " + c + ")"
                                               : "(N " + n + ", C " + c + ", S " + s + ")";
}

const char* text_of(ShapeDefect defect) {
  switch (defect) {
    case ShapeDefect::too_few_dimensions:
      return "has less than 2 dimensions, wanted (N, C) or more";
    case ShapeDefect::negative_extent:
      return "has a negative extent";
    case ShapeDefect::overflow:
      return "has more elements than can be addressed";
    case ShapeDefect::not_dense:
      return "is not dense, neither as (N, C, *spatial) nor as (N, *spatial, C): its strides ask for a copy, which is "
             "the caller's";
    case ShapeDefect::unknown_type:
      return "has an unknown element type, wanted f32, f64, bf16 or f16";
    case ShapeDefect::none:
      break;
  }
  return "";
}

/// The tensors that go with parameters of a type.
const char* types_for(DataType parameter_type) {
  return parameter_type == DataType::f64 ? "f64 tensors" : "f32, bf16 and f16 tensors";
}

/// One tensor by itself. No tensor at all is fine: a shard without samples.
std::optional<Problem> check_tensor(const Place& place, const char* name, const ConstTensorView& tensor) {
  const BatchNormOptions& options = place.options;
  if (tensor.shape.defect != ShapeDefect::none) {
    return shape_problem(place, std::string(name) + " " + text_of(tensor.shape.defect));
  }
  if (tensor.is_none()) return std::nullopt;
  if (tensor.shape.channels != options.num_features) {
    return shape_problem(place, std::string(name) + " has " + std::to_string(tensor.shape.channels) +
                                    " channels, num_features is " + std::to_string(options.num_features));
  }
  if (parameter_type_for(tensor.type) != options.parameter_type) {
    return shape_problem(place, std::string(name) + " is " + name_of(tensor.type) + ", the layer's parameters are " +
                                    name_of(options.parameter_type) + ", which go with " +
                                    types_for(options.parameter_type));
  }
  if (tensor.data == nullptr && tensor.shape.element_count() > 0) {
    return shape_problem(place, std::string(name) + " has " + std::to_string(tensor.shape.element_count()) +
                                    " elements, its pointer is null");
  }
  return std::nullopt;
}

bool both_empty(const ConstTensorView& a, const ConstTensorView& b) {
  return a.shape.is_empty() && b.shape.is_empty() && (a.is_none() || b.is_none());
}

/// b must have the shape, layout and type of a.
std::optional<Problem> check_same(const Place& place, const char* name_a, const ConstTensorView& a, const char* name_b,
                                  const ConstTensorView& b) {
  if (both_empty(a, b)) return std::nullopt;
  if (a.shape != b.shape || a.type != b.type) {
    return shape_problem(place, std::string(name_b) + " is " + name_of(b.type) + " " + text_of(b.shape) + ", " +
                                    name_a + " is " + name_of(a.type) + " " + text_of(a.shape));
  }
  return std::nullopt;
}

/// Two tensors of one shape either share all their memory or none.
std::optional<Problem> check_overlap(const Place& place, const char* name_a, const ConstTensorView& a,
                                     const char* name_b, const ConstTensorView& b) {
  const auto begin_a = reinterpret_cast<std::uintptr_t>(a.data);
  const auto begin_b = reinterpret_cast<std::uintptr_t>(b.data);
  const auto bytes = static_cast<std::uintptr_t>(a.shape.element_count() * size_of(a.type));
  if (bytes == 0 || begin_a == begin_b) return std::nullopt;
  if (begin_a < begin_b + bytes && begin_b < begin_a + bytes) {
    return shape_problem(place,
                         std::string(name_b) + " overlaps " + name_a + " in part; it must be the same memory or apart");
  }
  return std::nullopt;
}

std::optional<Problem> check_pair(const Place& place, const char* name_a, const ConstTensorView& a, const char* name_b,
                                  const ConstTensorView& b) {
  if (auto problem = check_tensor(place, name_b, b)) return problem;
  if (auto problem = check_same(place, name_a, a, name_b, b)) return problem;
  return check_overlap(place, name_a, a, name_b, b);
}

}  // namespace

std::string where(const std::string& name, const char* pass) { return "[BatchNorm '" + name + "' " + pass + "]"; }
std::string where(const BatchNormOptions& options) { return "[BatchNorm '" + options.name + "']"; }
std::string where(const BatchNormOptions& options, const char* pass) { return where(options.name, pass); }

/// The option whose enumeration has no such value: of a caller that casts from numbers.
static const char* unknown_choice(const BatchNormOptions& options) {
  const auto is_one_of_two = [](auto choice) { return static_cast<int>(choice) == 0 || static_cast<int>(choice) == 1; };
  if (!is_one_of_two(options.activation)) return "activation";
  if (!is_one_of_two(options.reduction)) return "reduction";
  if (!is_one_of_two(options.parameter_gradients)) return "parameter_gradients";
  if (!is_one_of_two(options.non_finite)) return "non_finite";
  return nullptr;
}

std::optional<Problem> check_options(const BatchNormOptions& options) {
  const auto problem = [&](const std::string& text) {
    return Problem{ErrorCode::option, where(options, "construction") + " " + text};
  };
  if (options.num_features <= 0) {
    return problem("num_features is " + std::to_string(options.num_features) + ", it must be at least 1");
  }
  if (!(options.eps >= 0.0) || !std::isfinite(options.eps)) {
    return problem("eps is " + std::to_string(options.eps) + ", it must be finite and at least 0");
  }
  if (options.num_features > kMostFeatures) {
    return problem("num_features is " + std::to_string(options.num_features) + ", it may be at most " +
                   std::to_string(kMostFeatures));
  }
  if (options.threads < 1 || options.threads > kMostThreads) {
    return problem("threads is " + std::to_string(options.threads) + ", it must be from 1 to " +
                   std::to_string(kMostThreads));
  }
  if (options.parameter_type != DataType::f32 && options.parameter_type != DataType::f64) {
    return problem(std::string("parameter_type is ") + name_of(options.parameter_type) +
                   ", it must be f32 (for f32, bf16 and f16 tensors) or f64");
  }
  if (const char* unknown = unknown_choice(options)) {
    return problem(std::string(unknown) + " is a number that stands for nothing");
  }
  if (!kernels::chosen_isa().is_valid) {
    return problem(std::string("the environment variable SYNCBN_ISA is '") + std::getenv("SYNCBN_ISA") +
                   "', which this processor or build does not have (scalar, avx2, avx512)");
  }
  if (options.momentum && !(*options.momentum >= 0.0 && *options.momentum <= 1.0)) {
    return problem("momentum is " + std::to_string(*options.momentum) + ", it must be in [0, 1]");
  }
  return std::nullopt;
}

std::optional<Problem> check_forward(const BatchNormOptions& options, const char* pass, const ConstTensorView& x,
                                     const TensorView& y, const ConstTensorView& residual) {
  const Place place{options, pass};
  if (auto problem = check_tensor(place, "x", x)) return problem;
  if (auto problem = check_pair(place, "x", x, "y", y)) return problem;
  if (residual.is_none()) return std::nullopt;
  if (auto problem = check_pair(place, "x", x, "residual", residual)) return problem;
  return check_overlap(place, "y", y, "residual", residual);
}

namespace {

std::optional<Problem> check_cache(const BatchNormOptions& options, const BackwardArguments& arguments) {
  const BatchNormCache& cache = arguments.cache;
  const auto problem = [&](const char* text) {
    return Problem{ErrorCode::state, where(options, "backward") + " " + text};
  };
  if (cache.mode == BatchNormCache::Mode::none) return problem("the cache is empty: no forward pass filled it");
  if (static_cast<Index>(cache.mean.size()) != options.num_features ||
      static_cast<Index>(cache.mean_lo.size()) != options.num_features ||
      static_cast<Index>(cache.invstd.size()) != options.num_features) {
    return problem("the cache is of a layer with another number of channels");
  }
  if (cache.x_overwritten && (cache.mode == BatchNormCache::Mode::train || arguments.wants_parameters)) {
    return problem(
        "x was overwritten by the forward pass (y = x); keep a copy "
        "and point cache.x to it");
  }
  return std::nullopt;
}

/// Outputs may be dy, but nothing else that is still needed, and not each other.
std::optional<Problem> check_outputs(const BatchNormOptions& options, const BackwardArguments& arguments) {
  const Place place{options, "backward"};
  const ConstTensorView& x = arguments.cache.x;
  const auto is_same = [](const ConstTensorView& a, const ConstTensorView& b) {
    return a.data == b.data && a.shape.element_count() > 0;
  };
  const bool has_relu = options.activation != Activation::none;
  if (!arguments.dx.is_none()) {
    if (auto found = check_pair(place, "dy", arguments.dy, "dx", arguments.dx)) return found;
    if (auto found = check_overlap(place, "x", x, "dx", arguments.dx)) return found;
    if (has_relu && arguments.dresidual.is_none() && is_same(arguments.dx, x)) {
      return shape_problem(place, "dx is x, but dx takes the masked gradient first; give dresidual, too");
    }
  }
  if (!arguments.dresidual.is_none()) {
    if (auto found = check_pair(place, "dy", arguments.dy, "dresidual", arguments.dresidual)) return found;
    if (is_same(arguments.dresidual, x)) return shape_problem(place, "dresidual is x, which is still needed");
    if (is_same(arguments.dresidual, arguments.dx)) return shape_problem(place, "dresidual is dx");
    if (auto found = check_overlap(place, "x", x, "dresidual", arguments.dresidual)) return found;
    if (arguments.dx.is_none()) return std::nullopt;
    return check_overlap(place, "dx", arguments.dx, "dresidual", arguments.dresidual);
  }
  return std::nullopt;
}

}  // namespace

std::optional<Problem> check_backward(const BatchNormOptions& options, const BackwardArguments& arguments) {
  const Place place{options, "backward"};
  if (auto found = check_cache(options, arguments)) return found;
  if (auto found = check_tensor(place, "x", arguments.cache.x)) return found;
  if (auto found = check_pair(place, "x", arguments.cache.x, "dy", arguments.dy)) return found;
  if (options.activation != Activation::none) {
    if (auto found = check_pair(place, "dy", arguments.dy, "y", arguments.cache.y)) return found;
    if (auto found = check_overlap(place, "y", arguments.cache.y, "dx", arguments.dx)) return found;
    if (auto found = check_overlap(place, "y", arguments.cache.y, "dresidual", arguments.dresidual)) return found;
  }
  return check_outputs(options, arguments);
}

}  // namespace syncbn::layer
