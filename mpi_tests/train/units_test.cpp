// SPDX-License-Identifier: MIT
// How a global batch is spread over ranks, and the counter-based order of samples.
#include "train/units.hpp"

#include <algorithm>

#include <gtest/gtest.h>

#include "train/trainer.hpp"

namespace syncbn::train {
namespace {

constexpr Index kBatches[] = {1, 4, 7, 8, 9, 16, 22, 64, 1000};

TEST(Units, CoverTheBatchInOrder) {
  for (const Index batch : kBatches) {
    Index next = 0;
    for (Index unit = 0; unit < kUnitCount; ++unit) {
      const SampleRange samples = unit_samples(batch, unit);
      EXPECT_EQ(samples.first, next) << "batch " << batch << " unit " << unit;
      EXPECT_LE(samples.count, (batch + kUnitCount - 1) / kUnitCount);
      for (Index sample = next; sample < next + samples.count; ++sample) {
        EXPECT_EQ(unit_of_sample(batch, sample), unit);
      }
      next += samples.count;
    }
    EXPECT_EQ(next, batch);
  }
}

TEST(Units, RanksShareTheSameUnitsWhateverTheirNumber) {
  for (const Index batch : kBatches) {
    for (Index ranks = 1; ranks <= 11; ++ranks) {
      Index unit = 0;
      Index sample = 0;
      for (Index rank = 0; rank < ranks; ++rank) {
        const Shard shard = shard_of_rank(batch, rank, ranks);
        Index count = 0;
        for (const SampleRange& range : shard.units) {
          const SampleRange wanted = unit_samples(batch, unit++);
          EXPECT_EQ(shard.samples.first + range.first, wanted.first);
          EXPECT_EQ(range.count, wanted.count);
          count += range.count;
        }
        EXPECT_EQ(shard.samples.count, count);
        sample += count;
      }
      EXPECT_EQ(unit, kUnitCount);
      EXPECT_EQ(sample, batch);
    }
  }
}

TEST(Units, ExtraRanksHaveNothing) {
  const Shard shard = shard_of_rank(64, 9, 11);
  EXPECT_TRUE(shard.units.empty());
  EXPECT_EQ(shard.samples.count, 0);
}

TEST(EpochOrder, IsAPermutationThatDependsOnSeedAndEpoch) {
  const std::vector<Index> order = epoch_order(1000, 3, 1);
  std::vector<Index> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (Index i = 0; i < 1000; ++i) EXPECT_EQ(sorted[static_cast<std::size_t>(i)], i);
  EXPECT_NE(order, sorted);
  EXPECT_EQ(order, epoch_order(1000, 3, 1));
  EXPECT_NE(order, epoch_order(1000, 3, 2));
  EXPECT_NE(order, epoch_order(1000, 4, 1));
}

TEST(ShareSizes, AreThoseOfRanksAndOfNormGroups) {
  const Arm local{Arm::Kind::local, 0};
  EXPECT_EQ(samples_per_rank(local, 16, 3).smallest, 4);  // 3, 3 and 2 units of 2
  EXPECT_EQ(samples_per_rank(local, 16, 3).largest, 6);
  EXPECT_EQ(samples_per_norm(local, 16, 4).largest, 4);
  EXPECT_EQ(samples_per_norm({Arm::Kind::group, 2}, 16, 4).smallest, 8);
  EXPECT_EQ(samples_per_norm({Arm::Kind::sync, 0}, 16, 4).smallest, 16);
  EXPECT_EQ(samples_per_rank({Arm::Kind::single, 0}, 16, 4).smallest, 16);
}

}  // namespace
}  // namespace syncbn::train
