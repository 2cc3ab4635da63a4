// SPDX-License-Identifier: MIT
// Where the time of a training step goes.
#pragma once

#include <vector>

#include "network.hpp"
#include "records.hpp"

namespace syncbn::train {

/// Of the steps since the last call, whose times these are, one at least. The network's batch norms must measure their
/// costs, and have nothing but these steps in them; they begin anew. Local.
StepCosts take_step_costs(const Network<float>& network, const std::vector<double>& step_seconds);

/// The median of each by itself, of those that are known: robust against an epoch in which the machine had other things to
/// do. kNone if there are none.
StepCosts median_of(const std::vector<StepCosts>& costs);

}  // namespace syncbn::train
