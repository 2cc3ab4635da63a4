// SPDX-License-Identifier: MIT
#include "statistics/running_stats.hpp"

#include <gtest/gtest.h>

namespace syncbn::testing {
namespace {

using statistics::BatchStatistics;

class RunningStats : public ::testing::TestWithParam<DataType> {
 protected:
  void update(Index count, double weight, bool unbiased) {
    statistics::update_running_stats(BatchStatistics{mean_, var_, count}, weight, unbiased, running_mean_,
                                     running_var_);
  }
  /// Rounded once to the type of the running statistics.
  double stored(double value) const {
    return GetParam() == DataType::f64 ? value : static_cast<double>(static_cast<float>(value));
  }
  const double mean_[2] = {3.0, -0.1};
  const double var_[2] = {4.0, 0.3};
  ChannelVector running_mean_{GetParam(), 2, 0.7};
  ChannelVector running_var_{GetParam(), 2, 1.0};
};
INSTANTIATE_TEST_SUITE_P(Types, RunningStats, ::testing::Values(DataType::f32, DataType::f64),
                         [](const auto& type) { return name_of(type.param); });

TEST_P(RunningStats, MovesByTheWeightOfTheNewBatch) {
  const double before = running_mean_[0];
  update(5, 0.1, /*unbiased=*/false);
  for (int c = 0; c < 2; ++c) {
    EXPECT_EQ(running_mean_[c], stored((1.0 - 0.1) * before + 0.1 * mean_[c]));
    EXPECT_EQ(running_var_[c], stored((1.0 - 0.1) * 1.0 + 0.1 * var_[c]));
  }
}

TEST_P(RunningStats, TakesTheUnbiasedVariance) {
  update(5, 0.25, /*unbiased=*/true);
  for (int c = 0; c < 2; ++c) EXPECT_EQ(running_var_[c], stored(0.75 * 1.0 + 0.25 * (var_[c] * 1.25)));
}

TEST_P(RunningStats, KeepsItsVarianceWhereOneValueHasNoUnbiasedOne) {
  update(1, 0.5, /*unbiased=*/true);
  EXPECT_EQ(running_var_[0], 1.0);
  EXPECT_EQ(running_mean_[1], stored(0.5 * stored(0.7) + 0.5 * mean_[1]));
  update(1, 0.5, /*unbiased=*/false);
  EXPECT_EQ(running_var_[0], stored(0.5 + 0.5 * var_[0]));
}

TEST_P(RunningStats, WeightOneForgetsAndWeightZeroKeeps) {
  update(7, 0.0, true);
  EXPECT_EQ(running_mean_[0], stored(0.7));
  EXPECT_EQ(running_var_[1], 1.0);
  update(7, 1.0, false);
  EXPECT_EQ(running_mean_[1], stored(mean_[1]));
  EXPECT_EQ(running_var_[1], stored(var_[1]));
}

TEST(WeightOfNewBatch, IsMomentumOrThatOfACumulativeAverage) {
  EXPECT_EQ(statistics::weight_of_new_batch(0.1, 100), 0.1);
  EXPECT_EQ(statistics::weight_of_new_batch(std::nullopt, 0), 1.0);
  EXPECT_EQ(statistics::weight_of_new_batch(std::nullopt, 3), 0.25);
}

}  // namespace
}  // namespace syncbn::testing
