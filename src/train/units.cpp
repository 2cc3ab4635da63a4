// SPDX-License-Identifier: MIT
#include "units.hpp"

#include <algorithm>

namespace syncbn::train {

namespace {

/// ceil(unit * batch / kUnitCount): so unit 0, and with it rank 0, has samples of every batch.
Index first_sample(Index batch, Index unit) { return (unit * batch + kUnitCount - 1) / kUnitCount; }

}  // namespace

SampleRange unit_samples(Index batch, Index unit) {
  const Index first = first_sample(batch, unit);
  return {first, first_sample(batch, unit + 1) - first};
}

Index unit_of_sample(Index batch, Index sample) { return kUnitCount * sample / batch; }

SampleRange units_of_rank(Index rank, Index ranks) {
  const Index base = kUnitCount / ranks;
  const Index rest = kUnitCount % ranks;
  return {rank * base + std::min(rank, rest), base + (rank < rest ? 1 : 0)};
}

Shard shard_of_rank(Index batch, Index rank, Index ranks) {
  const SampleRange mine = units_of_rank(rank, ranks);
  Shard shard;
  shard.samples.first = unit_samples(batch, mine.first).first;
  for (Index unit = mine.first; unit < mine.first + mine.count; ++unit) {
    const SampleRange samples = unit_samples(batch, unit);
    shard.units.push_back({samples.first - shard.samples.first, samples.count});
    shard.samples.count += samples.count;
  }
  return shard;
}

}  // namespace syncbn::train
