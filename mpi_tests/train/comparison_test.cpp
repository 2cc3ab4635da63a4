// SPDX-License-Identifier: MIT
// The verdict of a comparison: sync passes, an impostor does not.
#include "train/comparison.hpp"

#include <gtest/gtest.h>

#include "train/collectives.hpp"
#include "train/generator.hpp"
#include "train/run_folder.hpp"

namespace syncbn::train {
namespace {

const DataSet& data() {
  static const DataSet images = generate_strokes({.train_count = 160, .test_count = 50, .seed = 20});
  return images;
}

ComparisonOptions options() {
  ComparisonOptions result;
  result.training.network = "mlp";
  result.batches = {16};
  result.training.epochs = 3;
  result.arms = {Arm::parse("single"), Arm::parse("sync"), Arm::parse("local")};
  result.seeds = {1, 5};
  return result;
}

TEST(Comparison, TrainsAllArmsAndPassesSync) {
  const Comparison comparison = compare(data(), options(), MPI_COMM_WORLD, {});
  ASSERT_EQ(comparison.runs.size(), 6u);
  EXPECT_EQ(comparison.runs[4].arm.name(), "sync");
  EXPECT_EQ(comparison.runs[4].seed, 5u);
  ASSERT_EQ(comparison.checks.size(), 2u);
  for (const SyncCheck& check : comparison.checks) EXPECT_TRUE(check.has_passed);
}

// The bound must be small enough to tell local batch norm, which is a wrong statistic, from rounding.
TEST(Comparison, WouldNotPassLocalAsSync) {
  if (size_of(MPI_COMM_WORLD) == 1) GTEST_SKIP() << "one rank: local is sync";
  TrainingOptions training = training_of(options(), 16, 1);
  const auto run = [&](const char* arm) { return train(data(), training, Arm::parse(arm), MPI_COMM_WORLD, {}); };
  const TrainingResult single = run("single");
  const TrainingResult local = run("local");
  training.start = TrainingOptions::Start::nudged;
  const Difference control = difference(single, run("single"));
  EXPECT_GT(control.weights, 0) << "the control did not move";
  EXPECT_FALSE(is_within_bound(difference(single, local), control));
}

TEST(Comparison, ChecksNothingWithoutBothArms) {
  ComparisonOptions two = options();
  two.arms = {Arm::parse("sync"), Arm::parse("local")};
  two.seeds = {1};
  EXPECT_TRUE(compare(data(), two, MPI_COMM_WORLD, {}).checks.empty());
}

TEST(ComparisonVerdict, ComparesAllThreeDifferences) {
  const Difference control{1e-3, 1e-3, 1e-6, false};
  EXPECT_TRUE(is_within_bound({15e-3, 15e-3, 15e-6, false}, control));
  EXPECT_FALSE(is_within_bound({17e-3, 0, 0, false}, control));
  EXPECT_FALSE(is_within_bound({0, 17e-3, 0, false}, control));
  EXPECT_FALSE(is_within_bound({0, 0, 20e-6, false}, control));
}

TEST(ComparisonVerdict, SeesNaNAndEarlyStops) {
  TrainingResult a;
  a.step_losses = {1, 2};
  a.parameters = {1};
  TrainingResult b = a;
  EXPECT_TRUE(is_within_bound(difference(a, b), Difference{}));
  b.parameters = {std::numeric_limits<float>::quiet_NaN()};
  EXPECT_FALSE(is_within_bound(difference(a, b), Difference{}));
  b = a;
  b.step_losses = {1};
  EXPECT_FALSE(is_within_bound(difference(a, b), Difference{}));
}

TEST(Comparison, TakesSeveralBatchesAndTellsOfEach) {
  ComparisonOptions several = options();
  several.training.epochs = 1;
  several.training.sgd.learning_rate = 0.08;
  several.batches = {32, 8};
  several.seeds = {1};
  EXPECT_EQ(training_of(several, 32, 1).sgd.learning_rate, 0.08);
  EXPECT_EQ(training_of(several, 8, 1).sgd.learning_rate, 0.02);

  std::vector<std::string> told;
  ComparisonObserver observer;
  observer.on_begin = [&](const TrainingId& id) {
    told.push_back("begin " + id.label + std::to_string(id.batch));
    return Observer();
  };
  observer.on_end = [&](const ArmRun& run) { told.push_back("end " + run.id().label); };
  observer.on_check = [&](const SyncCheck& check) { told.push_back("check " + std::to_string(check.batch)); };
  several.arms = {Arm::parse("single"), Arm::parse("sync")};
  const Comparison comparison = compare(data(), several, MPI_COMM_WORLD, observer);
  const std::vector<std::string> wanted = {"begin single32", "end single", "begin sync32", "end sync", "check 32",
                                           "begin single8",  "end single", "begin sync8",  "end sync", "check 8"};
  EXPECT_EQ(told, wanted);
  ASSERT_EQ(comparison.runs.size(), 4u);
  EXPECT_EQ(comparison.runs[0].result.step_losses.size(), 5u);  // 160 / 32
  EXPECT_EQ(comparison.runs[2].result.step_losses.size(), 20u);
  for (const ArmRun& run : comparison.runs) EXPECT_GT(run.result.epochs.back().step_seconds, 0);
}

TEST(RunRecords, TurnNotANumberIntoNull) {
  EXPECT_EQ(step_line({"sync", 16, 1}, {1, 2, 3, std::numeric_limits<double>::quiet_NaN()}),
            R"({"kind":"step","arm":"sync","batch":16,"seed":1,"epoch":1,"step":2,"loss":null})");
}

}  // namespace
}  // namespace syncbn::train
