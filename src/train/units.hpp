// SPDX-License-Identifier: MIT
// The global batch cut into units of work that do not depend on the number of ranks.
#pragma once

#include <vector>

#include "syncbn/tensor_view.hpp"

namespace syncbn::train {

/// Units per global batch. Everything outside batch norm is computed unit by unit, with shapes that depend on the unit
/// alone, so its bits do not depend on the rank that has the unit.
inline constexpr Index kUnitCount = 8;

/// Consecutive samples.
struct SampleRange {
  Index first = 0;
  Index count = 0;
};

/// Unit `unit` of a global batch: batch / kUnitCount samples, rounded up or down such that any two rows of as many consecutive
/// units differ by one sample at most. In a batch of less than kUnitCount samples the empty units lie between the others, so that
/// 2, 4 or 8 ranks get even shares of it, too; unit 0 always has a sample.
SampleRange unit_samples(Index batch, Index unit);

/// The unit that has sample 0 .. batch - 1 of a global batch.
Index unit_of_sample(Index batch, Index sample);

/// The units of one rank: a consecutive block; the first kUnitCount % ranks ranks have one more. With more ranks than
/// units, the last ranks have none.
SampleRange units_of_rank(Index rank, Index ranks);

/// One rank's part of a global batch.
struct Shard {
  SampleRange samples;             ///< In the global batch.
  std::vector<SampleRange> units;  ///< The rank's units, relative to samples.first.
};

Shard shard_of_rank(Index batch, Index rank, Index ranks);

}  // namespace syncbn::train
