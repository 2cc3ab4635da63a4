// SPDX-License-Identifier: MIT
// Ranks that have nothing to do, because a global batch is cut into units and ranks take whole ones.
#pragma once

#include <string>
#include <vector>

#include "units.hpp"

namespace syncbn::train {

/// How many of the ranks have no sample of a global batch: all of their units are empty, or there are more ranks than units.
Index idle_ranks(Index batch, Index ranks);

/// Says so, for the batches where there are any: "2 of 4 ranks have no samples at a global batch of 2: ...". Empty if there are
/// none at all.
std::string idle_sentence(const std::vector<Index>& batches, Index ranks);

}  // namespace syncbn::train
