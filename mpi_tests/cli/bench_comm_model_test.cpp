// SPDX-License-Identifier: MIT
// The model of messages: small cases by hand, and how it grows.
#include "bench_comm_model.hpp"

#include <gtest/gtest.h>

namespace syncbn::cli::bench {
namespace {

// Powers of two, so that sums are exact: a message of 256 bytes takes 8 + 2 * 1 + 256/64 = 14.
constexpr Link kLink{8.0, 1.0, 2.0, 1.0 / 64};
constexpr MessageCost kMessage{256, 16.0, 32.0};
constexpr double kSend = 14.0, kMerge = 16.0, kRound = 32.0;

double predicted(Algorithm algorithm, int ranks) { return predicted_seconds(algorithm, ranks, kLink, kMessage); }

TEST(BenchCommModel, OneRankSendsNothing) {
  for (const Algorithm algorithm : {Algorithm::doubling, Algorithm::tree, Algorithm::linear}) {
    EXPECT_EQ(predicted(algorithm, 1), 0.0) << name_of(algorithm);
  }
}

TEST(BenchCommModel, TwoRanksExchangeOnceOrGoThereAndBack) {
  EXPECT_EQ(predicted(Algorithm::doubling, 2), kRound + kSend + kMerge);
  EXPECT_EQ(predicted(Algorithm::linear, 2), kRound + kSend + kMerge);
  EXPECT_EQ(predicted(Algorithm::tree, 2), kRound + 2 * kSend + kMerge);
}

TEST(BenchCommModel, RanksBeyondAPowerOfTwoAreFoldedIn) {
  EXPECT_EQ(predicted(Algorithm::doubling, 8), kRound + 3 * (kSend + kMerge));
  EXPECT_EQ(predicted(Algorithm::doubling, 7), kRound + 2 * (kSend + kMerge) + 2 * kSend + kMerge);
  EXPECT_EQ(predicted(Algorithm::tree, 5), predicted(Algorithm::tree, 8));
  EXPECT_EQ(predicted(Algorithm::tree, 8), kRound + 3 * (2 * kSend + kMerge));
}

TEST(BenchCommModel, GatheringIsBoundByWhatIsSlowestBetweenMessages) {
  const double transfer = 256.0 / 64;
  EXPECT_EQ(predicted(Algorithm::linear, 5), kRound + kSend + 3 * transfer + 4 * kMerge);
  const Link slow_to_start{8.0, 1.0, 6.0, 1.0 / 64};
  EXPECT_EQ(predicted_seconds(Algorithm::linear, 5, slow_to_start, kMessage), kRound + kSend + 3 * 6.0 + 4 * kMerge);
  const Link busy{8.0, 5.0, 6.0, 1.0 / 64};
  EXPECT_EQ(predicted_seconds(Algorithm::linear, 5, busy, kMessage), kRound + 22.0 + 3 * 10.0 + 4 * kMerge);
}

TEST(BenchCommModel, OnManyRanksOnlyGatheringIsLinear) {
  const int many = 65536;
  EXPECT_EQ(predicted(Algorithm::doubling, many), kRound + 16 * (kSend + kMerge));
  EXPECT_EQ(predicted(Algorithm::tree, many), kRound + 16 * (2 * kSend + kMerge));
  EXPECT_GT(predicted(Algorithm::linear, many), many * kMerge);
}

}  // namespace
}  // namespace syncbn::cli::bench
