// SPDX-License-Identifier: MIT
// Short trainings in all arms.
#include "train/trainer.hpp"

#include <bit>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "train/collectives.hpp"
#include "train/comparison.hpp"
#include "train/errors.hpp"
#include "train/generator.hpp"
#include "train/step_costs.hpp"

namespace syncbn::train {
namespace {

const DataSet& data() {
  static const DataSet images = generate_strokes({.train_count = 200, .test_count = 70, .seed = 20});
  return images;
}

TrainingOptions options(const std::string& network) {
  TrainingOptions result;
  result.network = network;
  result.epochs = 2;
  result.batch = 22;  // units of 3, 3, 3, 2, 3, 3, 3, 2
  return result;
}

TrainingResult run(const TrainingOptions& training, const std::string& arm) {
  return train(data(), training, Arm::parse(arm), MPI_COMM_WORLD, {});
}

int ranks() { return size_of(MPI_COMM_WORLD); }

/// All ranks hold the result of rank 0.
void expect_same_on_all_ranks(const TrainingResult& result) {
  TrainingResult first = result;
  broadcast(MPI_COMM_WORLD, first.weights_hash);
  broadcast(MPI_COMM_WORLD, first.test_accuracy);
  EXPECT_EQ(result.weights_hash, first.weights_hash);
  // NaN of a training that diverged is equal to itself.
  EXPECT_EQ(std::bit_cast<std::uint64_t>(result.test_accuracy), std::bit_cast<std::uint64_t>(first.test_accuracy));
  EXPECT_EQ(result.weights_hash, hash_of(result.parameters, result.running_stats));
}

class Trainer : public testing::TestWithParam<const char*> {};

// Each batch norm sum is exact, each unit's part is the same bits on any rank, and units are added in one order.
TEST_P(Trainer, SyncIsSingleToTheLastBit) {
  const TrainingResult single = run(options(GetParam()), "single");
  const TrainingResult sync = run(options(GetParam()), "sync");
  EXPECT_TRUE(difference(single, sync).same_bits);
  EXPECT_EQ(single.step_losses, sync.step_losses);
}

// The bound is SyncCheck's: what one rounding error in the initial weights does to the same training, kSlack times.
TEST_P(Trainer, SyncIsSingleUpToRounding) {
  const TrainingOptions training = options(GetParam());
  const TrainingResult single = run(training, "single");
  const TrainingResult sync = run(training, "sync");
  expect_same_on_all_ranks(single);
  expect_same_on_all_ranks(sync);
  TrainingOptions nudged = training;
  nudged.start = TrainingOptions::Start::nudged;
  const Difference control = difference(single, run(nudged, "single"));
  const Difference found = difference(single, sync);
  EXPECT_TRUE(is_within_bound(found, control)) << "weights " << found.weights << " against " << control.weights
                                               << ", loss " << found.loss << " against " << control.loss;
  EXPECT_LT(control.early_loss, 1e-3) << "the control has become too coarse to catch anything";
}

TEST_P(Trainer, LocalIsAnotherTrainingThanSync) {
  const TrainingOptions training = options(GetParam());
  const Difference found = difference(run(training, "sync"), run(training, "local"));
  if (ranks() == 1) {
    EXPECT_TRUE(found.same_bits);
  } else {
    EXPECT_GT(found.early_loss, 1e-3);
    EXPECT_FALSE(is_within_bound(found, Difference{}));
  }
}

TEST_P(Trainer, RepeatsBitForBit) {
  TrainingOptions training = options(GetParam());
  training.epochs = 1;
  for (const char* arm : {"single", "sync", "local"}) {
    EXPECT_EQ(run(training, arm).weights_hash, run(training, arm).weights_hash) << arm;
  }
  TrainingOptions other = training;
  other.seed = 2;
  EXPECT_NE(run(training, "sync").weights_hash, run(other, "sync").weights_hash);
}

INSTANTIATE_TEST_SUITE_P(Networks, Trainer, testing::Values("mlp", "cnn", "resnet"));

class TrainerSharding : public testing::TestWithParam<const char*> {};

// `single` knows nothing of ranks, and this runs on several numbers of them: so all have the same bits. Exact statistics come
// from batches that are handed out, too.
TEST_P(TrainerSharding, LeavesSyncTheTrainingOfSingle) {
  for (const char* network : {"mlp", "cnn"}) {
    TrainingOptions training = options(network);
    training.sharding = Sharding::parse(GetParam());
    training.evaluation.is_precise = true;
    const TrainingResult single = run(training, "single");
    const TrainingResult sync = run(training, "sync");
    expect_same_on_all_ranks(sync);
    EXPECT_TRUE(difference(single, sync).same_bits) << network;
    EXPECT_EQ(single.step_losses, sync.step_losses) << network;
    EXPECT_EQ(single.epochs.back().others.precise, sync.epochs.back().others.precise) << network;
  }
}

// The batches have the same samples, so full-batch training is the same but for the order of sums; local's is not.
TEST_P(TrainerSharding, KeepsTheSamplesOfABatch) {
  const TrainingOptions plain = options("mlp");
  TrainingOptions training = plain;
  training.sharding = Sharding::parse(GetParam());
  EXPECT_LT(difference(run(plain, "single"), run(training, "single")).early_loss, 1e-3);
  EXPECT_NE(run(plain, "single").weights_hash, run(training, "single").weights_hash) << "nothing was handed out";
  if (ranks() == 1) return;
  EXPECT_GT(difference(run(plain, "local"), run(training, "local")).early_loss, 1e-2);
  EXPECT_EQ(run(training, "local").weights_hash, run(training, "local").weights_hash);
}

INSTANTIATE_TEST_SUITE_P(Modes, TrainerSharding, testing::Values("by-class", "dirichlet:0.3"));

TEST(TrainerGroups, OfAllRanksAreSyncAndOfOneAreLocal) {
  const TrainingOptions training = options("mlp");
  EXPECT_EQ(run(training, "group:" + std::to_string(ranks())).weights_hash, run(training, "sync").weights_hash);
  EXPECT_EQ(run(training, "group:1").weights_hash, run(training, "local").weights_hash);
}

TEST(TrainerEpochs, AreCountedAndReported) {
  TrainingOptions training = options("mlp");
  std::int64_t told[2] = {0, 0};
  Observer observer;
  observer.on_step = [&](const StepRecord& record) { EXPECT_EQ(record.step, ++told[0]); };
  observer.on_epoch = [&](const EpochRecord& record) { EXPECT_EQ(record.epoch, ++told[1]); };
  const TrainingResult result = train(data(), training, Arm::parse("sync"), MPI_COMM_WORLD, observer);
  EXPECT_EQ(result.step_losses.size(), 18u);  // 9 whole batches of 22 in 200
  EXPECT_EQ(result.epochs.size(), 2u);
  all_reduce_sum(MPI_COMM_WORLD, told, 2);
  EXPECT_EQ(told[0], 18) << "told on one rank only";
  EXPECT_EQ(told[1], 2);

  training.epochs = 0;
  const TrainingResult untrained = run(training, "sync");
  EXPECT_TRUE(untrained.step_losses.empty());
  EXPECT_EQ(untrained.weights_hash, run(training, "local").weights_hash);
}

/// pass_costs.hpp, of mlp's batch norms of 128 and 64 channels, both passes.
constexpr double kBytesOfMlp = 2 * (120 + 54 * 128 + 120 + 54 * 64);

TEST(TrainerCosts, PartsAreThoseOfTheSteps) {
  for (const char* arm : {"single", "sync", "local"}) {
    SCOPED_TRACE(arm);
    const TrainingResult result = run(options("mlp"), arm);
    double steps_seconds = 0;
    for (const EpochRecord& epoch : result.epochs) {
      const StepCosts& costs = epoch.costs;
      EXPECT_GT(costs.statistics_seconds, 0);
      EXPECT_GT(costs.element_seconds, 0);
      EXPECT_GT(costs.rest_seconds, 0);
      const bool has_message = arm == std::string("sync") && ranks() > 1;
      EXPECT_EQ(costs.message_seconds > 0, has_message) << costs.message_seconds;
      EXPECT_EQ(costs.message_bytes, has_message ? kBytesOfMlp : 0);
      steps_seconds += 9 * costs.seconds();  // 9 steps an epoch
    }
    EXPECT_LE(steps_seconds, result.seconds);
  }
}

TEST(TrainerCosts, OfGroupsAreThoseOfTheirMessages) {
  const TrainingResult result = run(options("mlp"), "group:2");
  EXPECT_EQ(result.epochs[0].costs.message_bytes, ranks() > 1 ? kBytesOfMlp : 0);
}

TEST(TrainerCosts, MedianLeavesOutWhatIsNotKnown) {
  const StepCosts median = median_of({{1, 10, 3, 4, 5}, {}, {3, 30, 1, 8, 5}, {2, 20, 2, 9, 5}});
  EXPECT_EQ(median.statistics_seconds, 2);
  EXPECT_EQ(median.message_seconds, 20);
  EXPECT_EQ(median.element_seconds, 2);
  EXPECT_EQ(median.rest_seconds, 8);
  EXPECT_EQ(median.message_bytes, 5);
  EXPECT_TRUE(median.are_known());
  EXPECT_FALSE(median_of({{}}).are_known());
  EXPECT_FALSE(median_of({}).are_known());
}

/// What rank 0 was told, on rank 0.
std::vector<StepRecord> drifts_of(const TrainingOptions& training, const char* arm, TrainingResult& result) {
  std::vector<StepRecord> told;
  Observer observer;
  observer.on_step = [&](const StepRecord& record) {
    if (!record.drifts.empty()) told.push_back(record);
  };
  result = train(data(), training, Arm::parse(arm), MPI_COMM_WORLD, observer);
  return told;
}

TEST(TrainerDrift, IsToldOfSyncOnSeveralRanks) {
  TrainingOptions training = options("resnet");
  training.epochs = 3;
  TrainingResult result;
  const std::vector<StepRecord> told = drifts_of(training, "sync", result);
  EXPECT_EQ(told.empty(), ranks() == 1 || size_t(rank_of(MPI_COMM_WORLD)) > 0);
  for (const StepRecord& record : told) {
    ASSERT_EQ(record.drifts.size(), 9u);
    EXPECT_EQ(record.drifts.front().layer, "bn1");
    for (const LayerDrift& drift : record.drifts) {
      EXPECT_GT(drift.mean_drift, 0) << drift.layer;
      EXPECT_LT(drift.mean_drift, 10) << drift.layer;
    }
  }
  for (const char* arm : {"single", "local", "group:2"}) {
    EXPECT_TRUE(drifts_of(options("mlp"), arm, result).empty()) << arm;
  }
}

TEST(TrainerLoss, FallsAndBatchesOfOneSampleWork) {
  TrainingOptions training = options("mlp");
  training.epochs = 6;
  const TrainingResult result = run(training, "sync");
  EXPECT_LT(result.epochs.back().train_loss, 0.5 * result.epochs.front().train_loss);
  EXPECT_GT(result.test_accuracy, 0.3);
  training.batch = 1;  // all ranks but the first have nothing
  training.epochs = 1;
  const DataSet few = generate_strokes({.train_count = 10, .test_count = 10, .seed = 20});
  EXPECT_FALSE(train(few, training, Arm::parse("sync"), MPI_COMM_WORLD, {}).diverged);
}

TEST(TrainerDivergence, StopsOnAllRanksAtTheSameStep) {
  TrainingOptions training = options("cnn");
  training.sgd.learning_rate = 1e30;
  const TrainingResult result = run(training, "sync");
  EXPECT_TRUE(result.diverged);
  EXPECT_LT(result.step_losses.size(), 18u);
  EXPECT_FALSE(std::isfinite(result.step_losses.back()));
  expect_same_on_all_ranks(result);
}

// Rates of 1e-30 change no weight, so what comes behind the milestone must be as if it were not there.
TEST(TrainerSchedule, CountsMilestonesInEpochs) {
  TrainingOptions training = options("mlp");
  training.sgd.schedule = Schedule::multistep;
  training.sgd.milestones = {1};
  training.sgd.lr_gamma = 1e-30;
  const TrainingResult two_epochs = run(training, "sync");
  training.epochs = 1;
  EXPECT_EQ(two_epochs.parameters, run(training, "sync").parameters);
  training.sgd.milestones = {2};
  training.epochs = 2;
  EXPECT_NE(two_epochs.parameters, run(training, "sync").parameters);
}

TEST(TrainerSchedule, WarmsUp) {
  TrainingOptions training = options("mlp");
  const TrainingResult cold = run(training, "sync");
  training.sgd.warmup_steps = 5;
  const TrainingResult warm = run(training, "sync");
  EXPECT_EQ(cold.step_losses[0], warm.step_losses[0]);
  EXPECT_NE(cold.step_losses[1], warm.step_losses[1]);
}

TEST(TrainerOptions, OutOfRangeAreRefusedWithOneSentence) {
  const auto refused = [](const std::function<void(TrainingOptions&)>& change, const std::string& word) {
    TrainingOptions training = options("mlp");
    change(training);
    try {
      check_options(training, data());
      FAIL() << "accepted, wanted a complaint about " << word;
    } catch (const UsageError& error) {
      EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    }
  };
  refused([](TrainingOptions& t) { t.epochs = -1; }, "epochs is -1");
  refused([](TrainingOptions& t) { t.epochs = std::numeric_limits<Index>::max(); }, "0 to 1000000");
  refused([](TrainingOptions& t) { t.batch = 0; }, "batch is 0");
  refused([](TrainingOptions& t) { t.batch = 201; }, "1 to 200");
  refused([](TrainingOptions& t) { t.network = "vgg"; }, "'vgg'");
  refused([](TrainingOptions& t) { t.sgd.learning_rate = NAN; }, "learning rate");
  refused([](TrainingOptions& t) { t.sgd.momentum = 1; }, "momentum is 1");
  refused([](TrainingOptions& t) { t.sgd.weight_decay = -0.5; }, "decay is -0.5");
  refused([](TrainingOptions& t) { t.sgd.warmup_steps = -1; }, "warmup is -1");
  refused([](TrainingOptions& t) { t.sgd.warmup_steps = 19; }, "0 to 18 steps");
  refused([](TrainingOptions& t) { t.sgd.lr_gamma = 0; }, "--lr-gamma is 0");
  refused([](TrainingOptions& t) { t.sgd.milestones = {1}; }, "for --schedule multistep");
  refused([](TrainingOptions& t) { t.sgd.schedule = Schedule::multistep; }, "needs --milestones");
  const auto milestones = [](const std::vector<Index>& list) {
    return [list](TrainingOptions& t) {
      t.sgd.schedule = Schedule::multistep;
      t.sgd.milestones = list;
    };
  };
  refused(milestones({0}), "a milestone is 0, wanted more than 0");
  refused(milestones({3, 3}), "a milestone is 3, wanted more than 3");
  EXPECT_NO_THROW(check_options(options("cnn"), data()));
}

TEST(ArmNames, AreReadAndWritten) {
  for (const char* name : {"single", "sync", "local", "group:3"}) EXPECT_EQ(Arm::parse(name).name(), name);
  for (const char* name :
       {"", "Sync", "group", "group:", "group:0", "group:-1", "group:2x", "group:99999999999999999999"}) {
    EXPECT_THROW(Arm::parse(name), UsageError) << name;
  }
}

}  // namespace
}  // namespace syncbn::train
