// SPDX-License-Identifier: MIT
// The learning rate of every step.
#include "train/sgd.hpp"

#include <limits>

#include <gtest/gtest.h>

namespace syncbn::train {
namespace {

constexpr Index kStepsPerEpoch = 5;
constexpr Index kSteps = 8 * kStepsPerEpoch;

SgdOptions options(Schedule schedule, Index warmup = 0) {
  SgdOptions result;
  result.learning_rate = 0.8;
  result.schedule = schedule;
  result.warmup_steps = warmup;
  return result;
}

double rate(const SgdOptions& options, Index step) { return learning_rate(options, {step, kSteps, kStepsPerEpoch}); }

constexpr double kRounding = 4 * std::numeric_limits<double>::epsilon();

TEST(LearningRate, ConstantIsConstant) {
  for (Index step = 0; step < kSteps; ++step) EXPECT_EQ(rate(options(Schedule::constant), step), 0.8);
}

TEST(LearningRate, CosineFallsFromTheRateToAlmostNothing) {
  const SgdOptions cosine = options(Schedule::cosine);
  EXPECT_EQ(rate(cosine, 0), 0.8);
  EXPECT_NEAR(rate(cosine, kSteps / 2), 0.4, kRounding);
  for (Index step = 1; step < kSteps; ++step) EXPECT_LT(rate(cosine, step), rate(cosine, step - 1));
  EXPECT_GT(rate(cosine, kSteps - 1), 0);
  EXPECT_LT(rate(cosine, kSteps - 1), 0.8 * 0.002);
}

// As MultiStepLR(milestones=[2, 5, 6], gamma=0.5), stepped once an epoch.
TEST(LearningRate, MultistepFallsAtEpochs) {
  SgdOptions multistep = options(Schedule::multistep);
  multistep.milestones = {2, 5, 6};
  multistep.lr_gamma = 0.5;
  const double wanted[] = {0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.1, 0.1};
  for (Index step = 0; step < kSteps; ++step) EXPECT_EQ(rate(multistep, step), wanted[step / kStepsPerEpoch]) << step;
}

TEST(LearningRate, WarmupRisesToTheRateInEqualSteps) {
  for (const Schedule schedule : {Schedule::constant, Schedule::cosine}) {
    const SgdOptions warm = options(schedule, 8);
    for (Index step = 0; step < 8; ++step) {
      EXPECT_NEAR(rate(warm, step), 0.1 * static_cast<double>(step + 1), kRounding) << step;
    }
    EXPECT_EQ(rate(warm, 8), 0.8) << name_of(schedule);
  }
}

TEST(LearningRate, CosineTakesWhatWarmupLeaves) {
  const SgdOptions warm = options(Schedule::cosine, 8);
  EXPECT_NEAR(rate(warm, 8 + (kSteps - 8) / 2), 0.4, kRounding);
  EXPECT_GT(rate(warm, kSteps - 1), 0);
  EXPECT_LT(rate(warm, kSteps - 1), 0.8 * 0.003);
  const SgdOptions all = options(Schedule::cosine, kSteps);
  EXPECT_EQ(rate(all, kSteps - 1), 0.8);
}

TEST(LearningRate, MilestonesCountDuringWarmup) {
  SgdOptions warm = options(Schedule::multistep, 10);
  warm.milestones = {1};
  warm.lr_gamma = 0.5;
  EXPECT_NEAR(rate(warm, 4), 0.8 * 0.5, kRounding);
  EXPECT_NEAR(rate(warm, 5), 0.4 * 0.6, kRounding);
  EXPECT_EQ(rate(warm, 10), 0.4);
}

}  // namespace
}  // namespace syncbn::train
