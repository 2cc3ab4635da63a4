// SPDX-License-Identifier: MIT
// What a layer remembers between steps.
#pragma once

#include <optional>

#include "comm/round.hpp"
#include "syncbn/channel_vector.hpp"
#include "syncbn/options.hpp"

namespace syncbn::layer {

/// Parameters and running statistics; those that the options leave out are empty.
struct State {
  State() = default;
  /// gamma = 1, beta = 0, running_mean = 0, running_var = 1.
  explicit State(const BatchNormOptions& options);

  /// The user may put other vectors in their place: are they still (C) of the parameters' type?
  std::optional<comm::Problem> check(const BatchNormOptions& options, const char* pass) const;

  ChannelVector gamma, beta, running_mean, running_var;
  Index num_batches_tracked = 0;
};

}  // namespace syncbn::layer
