// SPDX-License-Identifier: MIT
// How a global batch is spread over ranks, and the counter-based order of samples.
#include "train/units.hpp"

#include <algorithm>

#include <gtest/gtest.h>

#include "train/idle_ranks.hpp"
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

TEST(Units, AreEighthsOfMultiplesOfEight) {
  for (const Index batch : {8, 16, 64, 1000}) {
    for (Index unit = 0; unit < kUnitCount; ++unit) EXPECT_EQ(unit_samples(batch, unit).count, batch / 8) << batch;
  }
}

TEST(Units, AreDealtEvenly) {
  for (Index batch = 1; batch <= 70; ++batch) {
    for (const Index ranks : {1, 2, 4, 8}) {
      Index smallest = batch;
      Index largest = 0;
      for (Index rank = 0; rank < ranks; ++rank) {
        const Index count = shard_of_rank(batch, rank, ranks).samples.count;
        smallest = std::min(smallest, count);
        largest = std::max(largest, count);
      }
      EXPECT_LE(largest - smallest, 1) << batch << " samples, " << ranks << " ranks";
    }
    for (Index ranks = 1; ranks <= 20; ++ranks) {
      EXPECT_GT(shard_of_rank(batch, 0, ranks).samples.count, 0) << "rank 0's statistics are kept";
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

TEST(ShareSizes, OfRanksWithoutSamplesAreZeroAndNothingIsNormalizedThere) {
  const Arm local{Arm::Kind::local, 0};
  EXPECT_EQ(samples_per_rank(local, 3, 4).smallest, 0);  // 1, 1, 1 and 0
  EXPECT_EQ(samples_per_rank(local, 3, 4).largest, 1);
  EXPECT_EQ(samples_per_norm(local, 3, 4).smallest, 1);
  EXPECT_EQ(samples_per_rank(local, 2, 4).smallest, 0);  // 1, 0, 1 and 0
  EXPECT_EQ(samples_per_norm({Arm::Kind::group, 2}, 2, 4).smallest, 1);
  EXPECT_EQ(samples_per_rank({Arm::Kind::single, 0}, 1, 4).smallest, 1);
}

TEST(IdleRanks, AreThoseWithoutASample) {
  for (Index ranks = 1; ranks <= 12; ++ranks) {
    for (Index batch = 1; batch <= 40; ++batch) {
      Index idle = 0;
      for (Index rank = 0; rank < ranks; ++rank) idle += shard_of_rank(batch, rank, ranks).samples.count == 0 ? 1 : 0;
      EXPECT_EQ(idle_ranks(batch, ranks), idle) << batch << " samples, " << ranks << " ranks";
      if (batch % kUnitCount == 0 && ranks <= kUnitCount) {
        EXPECT_EQ(idle, 0) << "the sentence promises it";
      }
    }
  }
  EXPECT_EQ(idle_ranks(64, 1000000000000000), 1000000000000000 - 8);
}

TEST(IdleRanks, AreSpokenOfWhereThereAreAny) {
  EXPECT_EQ(idle_sentence({64, 8}, 8), "");
  EXPECT_EQ(
      idle_sentence({2, 64, 3, 4}, 4),
      "2 of 4 ranks have no samples at a global batch of 2, 1 at 3: a batch is cut into 8 units and ranks take whole "
      "ones, so all have samples if there are at most 8 ranks and the batch is a multiple of 8.");
  EXPECT_EQ(idle_sentence({3}, 4).find("1 of 4 ranks has no samples"), 0u);
  EXPECT_NE(idle_sentence({64}, 11).find("3 of 11 ranks have no samples"), std::string::npos);
}

}  // namespace
}  // namespace syncbn::train
