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

/// 1 to the number of ranks, at most three numbers, the largest first.
std::vector<Index> some_rank_counts() {
  const Index all = size_of(MPI_COMM_WORLD);
  if (all == 1) return {1};
  return all == 2 ? std::vector<Index>{2, 1} : std::vector<Index>{all, 1, 2};
}

TEST(ComparisonOnRanks, TrainsAllArmsOnEachNumberAndSingleOnce) {
  ComparisonOptions several = options();
  several.ranks = some_rank_counts();
  several.seeds = {1};
  const Comparison comparison = compare(data(), several, MPI_COMM_WORLD, {});
  std::vector<std::string> trained, wanted;
  for (const ArmRun& run : comparison.runs) trained.push_back(run.arm.name() + std::to_string(run.ranks));
  for (const Index count : several.ranks) {
    if (wanted.empty()) wanted.push_back("single1");
    for (const char* arm : {"sync", "local"}) wanted.push_back(arm + std::to_string(count));
  }
  EXPECT_EQ(trained, wanted);

  ASSERT_EQ(comparison.checks.size(), several.ranks.size());
  for (std::size_t i = 0; i < several.ranks.size(); ++i) {
    EXPECT_EQ(comparison.checks[i].ranks, several.ranks[i]);
    EXPECT_EQ(comparison.checks[i].from.label, "single");
    EXPECT_TRUE(comparison.checks[i].sync.same_bits);
    EXPECT_TRUE(comparison.checks[i].has_passed);
  }
  for (const ArmRun& run : comparison.runs) {
    const bool is_full_batch = run.arm.kind != Arm::Kind::local || run.ranks == 1;
    EXPECT_EQ(run.result.weights_hash == comparison.runs[0].result.weights_hash, is_full_batch) << run.id().label;
  }
}

TEST(ComparisonOnRanks, HoldsSyncAgainstSyncWithoutSingle) {
  ComparisonOptions several = options();
  several.ranks = some_rank_counts();
  several.arms = {Arm::parse("sync")};
  const Comparison comparison = compare(data(), several, MPI_COMM_WORLD, {});
  ASSERT_EQ(comparison.checks.size(), 2 * (several.ranks.size() - 1));
  for (const SyncCheck& check : comparison.checks) {
    EXPECT_TRUE(check.from == (TrainingId{"sync", 16, check.seed, several.ranks[0]}));
    EXPECT_NE(check.ranks, several.ranks[0]);
    EXPECT_TRUE(check.sync.same_bits);
  }
}

// Whoever it is, all ranks end at the same place, with what is complete.
TEST(ComparisonOnRanks, StopsAtTheWishOfAnyRank) {
  const Index all = size_of(MPI_COMM_WORLD);
  ComparisonOptions several = options();
  several.arms = {Arm::parse("local")};
  several.ranks = {1};
  for (Index wisher = 0; wisher < all; ++wisher) {
    Index begun = 0;
    ComparisonObserver observer;
    observer.on_begin = [&](const TrainingId&) {
      ++begun;
      return Observer();
    };
    const auto wants_stop = [&] { return rank_of(MPI_COMM_WORLD) == wisher; };
    const Comparison comparison = compare(data(), several, MPI_COMM_WORLD, observer, wants_stop);
    EXPECT_TRUE(comparison.stopped);
    EXPECT_EQ(begun, 1);
    EXPECT_EQ(comparison.runs.size(), wisher == 0 ? 0u : 1u);  // who does not train is heard when others have trained
  }
}

TEST(RunRecords, TurnNotANumberIntoNull) {
  EXPECT_EQ(step_line({"sync", 16, 1, 4}, {1, 2, 3, std::numeric_limits<double>::quiet_NaN()}),
            R"({"kind":"step","arm":"sync","ranks":4,"batch":16,"seed":1,"epoch":1,"step":2,"loss":null})");
}

}  // namespace
}  // namespace syncbn::train
