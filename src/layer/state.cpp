// SPDX-License-Identifier: MIT
#include "layer/state.hpp"

#include "layer/check.hpp"

namespace syncbn::layer {
namespace {

std::optional<Problem> check_vector(const BatchNormOptions& options, const char* pass, const char* name,
                                    const ChannelVector& vector, bool exists) {
  const Index wanted = exists ? options.num_features : 0;
  if (vector.size() == wanted && (!exists || vector.type() == options.parameter_type)) return std::nullopt;
  return Problem{ErrorCode::state, where(options, pass) + " " + name + " has " + std::to_string(vector.size()) + " " +
                                       name_of(vector.type()) + " numbers, wanted " + std::to_string(wanted) + " " +
                                       name_of(options.parameter_type)};
}

}  // namespace

State::State(const BatchNormOptions& options) {
  const Index channels = options.num_features;
  if (options.affine) {
    gamma.assign(options.parameter_type, channels, 1.0);
    beta.assign(options.parameter_type, channels, 0.0);
  }
  if (options.track_running_stats) {
    running_mean.assign(options.parameter_type, channels, 0.0);
    running_var.assign(options.parameter_type, channels, 1.0);
  }
}

std::optional<Problem> State::check(const BatchNormOptions& options, const char* pass) const {
  const auto check_one = [&](const char* name, const ChannelVector& vector, bool exists) {
    return check_vector(options, pass, name, vector, exists);
  };
  if (auto problem = check_one("gamma", gamma, options.affine)) return problem;
  if (auto problem = check_one("beta", beta, options.affine)) return problem;
  if (auto problem = check_one("running_mean", running_mean, options.track_running_stats)) return problem;
  return check_one("running_var", running_var, options.track_running_stats);
}

}  // namespace syncbn::layer
