// SPDX-License-Identifier: MIT
// What one rank can find wrong in its own arguments. Nothing here throws: the finding travels with the layer's message.
#pragma once

#include <optional>
#include <string>

#include "comm/round.hpp"
#include "syncbn/batch_norm.hpp"

namespace syncbn::layer {

using comm::Problem;

/// "[BatchNorm 'conv1.bn' forward]"
std::string where(const BatchNormOptions& options);
std::string where(const BatchNormOptions& options, const char* pass);
std::string where(const std::string& name, const char* pass);

std::optional<Problem> check_options(const BatchNormOptions& options);

/// x is a tensor for this layer, y can take its result, and the residual, if any, fits.
std::optional<Problem> check_forward(const BatchNormOptions& options, const char* pass, const ConstTensorView& x,
                                     const TensorView& y, const ConstTensorView& residual);

/// What backward() is called with.
struct BackwardArguments {
  const BatchNormCache& cache;
  ConstTensorView dy;
  TensorView dx, dresidual;  // none: not wanted
  bool wants_parameters;
};

/// The cache is one that backward can use, dy fits its x, and dx and dresidual can take the results.
std::optional<Problem> check_backward(const BatchNormOptions& options, const BackwardArguments& arguments);

}  // namespace syncbn::layer
