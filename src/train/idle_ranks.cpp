// SPDX-License-Identifier: MIT
#include "idle_ranks.hpp"

#include <algorithm>

namespace syncbn::train {

Index idle_ranks(Index batch, Index ranks) {
  const Index with_units = std::min(ranks, kUnitCount);
  Index idle = ranks - with_units;
  for (Index rank = 0; rank < with_units; ++rank) idle += shard_of_rank(batch, rank, ranks).samples.count == 0 ? 1 : 0;
  return idle;
}

std::string idle_sentence(const std::vector<Index>& batches, Index ranks) {
  std::string text;
  for (const Index batch : batches) {
    const Index idle = idle_ranks(batch, ranks);
    if (idle == 0) continue;
    text += text.empty() ? std::to_string(idle) + " of " + std::to_string(ranks) + " ranks " +
                               (idle == 1 ? "has" : "have") + " no samples at a global batch of "
                         : ", " + std::to_string(idle) + " at ";
    text += std::to_string(batch);
  }
  if (text.empty()) return "";
  const std::string units = std::to_string(kUnitCount);
  return text + ": a batch is cut into " + units +
         " units and ranks take whole ones, so all have samples if there are at most " + units +
         " ranks and the batch is a multiple of " + units + ".";
}

}  // namespace syncbn::train
