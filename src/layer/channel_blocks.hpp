// SPDX-License-Identifier: MIT
// Channels taken a few at a time, for a rank that need not wait for a message between sums and element pass.
#pragma once

#include <algorithm>

#include "layer/channel_sums.hpp"
#include "layer/parallel.hpp"

namespace syncbn::layer {

/// What the tensors that a block reads twice may take up: what a core's L2 holds. (One channel of a large batch may be
/// more; it then comes out of the last-level cache.)
inline constexpr Index kBlockBytes = Index{1} << 20;

/// How the channels are cut up.
struct ChannelPlan {
  Index channels;
  Index width;  ///< Of a block, at most.
  Index parts;  ///< Threads that take blocks.
};

/// `tensors` of this shape are read twice. Blocks of a strip and more are whole strips, which are deposited fastest.
inline ChannelPlan plan_channels(const TensorShape& shape, DataType type, Index tensors, int threads) {
  const Index bytes = shape.samples * shape.positions * size_of(type) * tensors;
  const Index parts =
      std::clamp<Index>(shape.element_count() / kElementsPerThread, 1, std::min<Index>(threads, shape.channels));
  Index width = std::max<Index>(kBlockBytes / bytes, 1);
  if (width >= kernels::kStrip / 2) width = (width + kernels::kStrip - 1) / kernels::kStrip * kernels::kStrip;
  return {shape.channels, std::min(width, (shape.channels + parts - 1) / parts), parts};
}

/// Calls body(range, part) for blocks that cover the channels; those of one part one after the other.
template <class Body>
void for_each_channel_block(const ChannelPlan& plan, const Body& body) {
  for_each_part(plan.parts, [&](Index part) {
    const Range mine = part_of(plan.channels, part, plan.parts);
    for (Index c = mine.begin; c < mine.end; c += plan.width) {
      body(ChannelRange{c, std::min(c + plan.width, mine.end)}, part);
    }
  });
}

}  // namespace syncbn::layer
