// SPDX-License-Identifier: MIT
// Evaluation with other statistics than the running ones: what they are, and that training does not notice.
#include "train/evaluate.hpp"

#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "train/collectives.hpp"
#include "train/generator.hpp"
#include "train/trainer.hpp"

namespace syncbn::train {
namespace {

const DataSet& data() {
  static const DataSet images = generate_strokes({.train_count = 200, .test_count = 70, .seed = 20});
  return images;
}

int ranks() { return size_of(MPI_COMM_WORLD); }

TrainingResult run(const std::string& arm, EvaluationOptions evaluation, const std::string& network = "mlp",
                   const Observer& observer = {}) {
  TrainingOptions options;
  options.network = network;
  options.epochs = 4;
  options.batch = 22;
  options.evaluation = evaluation;
  return train(data(), options, Arm::parse(arm), MPI_COMM_WORLD, observer);
}

Network<float> make_network_of(const ArmRanks& arm_ranks) {
  Network<float> network = make_network<float>(
      "mlp", data().train.shape, kClassCount, [&](Index num_features, const std::string& name, Activation activation) {
        return arm_ranks.make_norm(num_features, name, activation, DataType::f32);
      });
  initialize(network, 5);
  return network;
}

/// Exact statistics of layer `layer` for batches of `batch`: means, then variances.
std::vector<double> statistics(const std::string& arm, Index batch, std::size_t layer) {
  const ArmRanks arm_ranks(Arm::parse(arm), MPI_COMM_WORLD);
  const Network<float> network = make_network_of(arm_ranks);
  PreciseStatistics precise("mlp", data().train, arm_ranks);
  std::vector<Index> order(static_cast<std::size_t>(data().train.count));
  std::iota(order.begin(), order.end(), Index{0});
  const BatchNorm& norm = *precise.recalculate(network, order, batch).trainables.norms[layer];
  std::vector<double> values(norm.running_mean().data<float>(), norm.running_mean().data<float>() + 64);
  values.insert(values.end(), norm.running_var().data<float>(), norm.running_var().data<float>() + 64);
  return values;
}

double largest_relative_difference(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(a[i] - b[i]) / (std::abs(a[i]) + 1e-3));
  }
  return largest;
}

// What comes to the first layer does not depend on batches: the moments of all samples, in one batch or merged.
TEST(PreciseStatistics, OfTheFirstLayerAreThoseOfAllSamplesHoweverTheyAreCut) {
  const std::vector<double> whole = statistics("sync", data().train.count, 0);
  for (const char* arm : {"sync", "local", "group:2"}) {
    for (const Index batch : {200, 22, 7, 1}) {
      const double difference = largest_relative_difference(whole, statistics(arm, batch, 0));
      EXPECT_LT(difference, 1e-5) << arm << ", batch " << batch;  // some hundred roundings to float on the way
    }
  }
}

// Deeper layers see what the layers above made of their batches.
TEST(PreciseStatistics, OfDeeperLayersAreThoseOfTheArm) {
  const std::vector<double> sync = statistics("sync", 22, 1);
  EXPECT_EQ(sync, statistics("sync", 22, 1));
  EXPECT_GT(largest_relative_difference(sync, statistics("sync", 4, 1)), 1e-3);
  if (ranks() > 1) {
    EXPECT_GT(largest_relative_difference(sync, statistics("local", 22, 1)), 1e-3);
  }
}

constexpr EvaluationOptions kAll{.compares_ranks = true, .is_precise = true, .in_train_mode = true};

TEST(Evaluation, LeavesTrainingAsItIs) {
  for (const char* network : {"mlp", "resnet"}) {
    for (const char* arm : {"single", "sync", "local", "group:2"}) {
      const TrainingResult plain = run(arm, {}, network);
      const TrainingResult evaluated = run(arm, kAll, network);
      EXPECT_EQ(plain.weights_hash, evaluated.weights_hash) << arm << ' ' << network;
      EXPECT_EQ(plain.step_losses, evaluated.step_losses) << arm << ' ' << network;
      for (std::size_t i = 0; i < plain.epochs.size(); ++i) {
        EXPECT_EQ(plain.epochs[i].test_accuracy, evaluated.epochs[i].test_accuracy);
      }
    }
  }
}

/// Where one batch has all images, training mode normalizes with their exact statistics: as evaluation with precise ones of
/// the same images. Smaller batches give other answers, in sync the same on any number of ranks.
TEST(Evaluation, InTrainingModeIsByTheBatchsOwnStatistics) {
  const ArmRanks arm_ranks(Arm::parse("sync"), MPI_COMM_WORLD);
  const Network<float> network = make_network_of(arm_ranks);
  const LabelledImages& images = data().test;
  PreciseStatistics second("mlp", images, arm_ranks);
  std::vector<Index> order(static_cast<std::size_t>(images.count));
  std::iota(order.begin(), order.end(), Index{0});
  const double exact = test_accuracy(second.recalculate(network, order, images.count), images, arm_ranks);
  EXPECT_EQ(second.accuracy_in_train_mode(network, images, images.count), exact);
  const double pairs = second.accuracy_in_train_mode(network, images, 2);
  EXPECT_NE(pairs, exact);
  EXPECT_GT(pairs, 0);
  EXPECT_EQ(second.accuracy_in_train_mode(network, images, 2), pairs) << "asked again";
}

// Ranks that wait for one that evaluates alone have a deadline, which must not end it.
TEST(Evaluation, SaysEveryFewImagesThatItIsAtWork) {
  for (const bool is_precise : {false, true}) {
    for (const bool in_train_mode : {false, true}) {
      Index told = 0;
      Observer observer;
      observer.on_work = [&] { ++told; };
      run("single", {.compares_ranks = false, .is_precise = is_precise, .in_train_mode = in_train_mode}, "mlp",
          observer);
      constexpr Index kSteps = 4 * 9;                 // of 22 of 200 samples
      constexpr Index kBlocks = 2;                    // of 70 test images
      constexpr Index kPrecise = 3 * (10 + kBlocks);  // the last epochs
      constexpr Index kTrainMode = 3 * 4;             // batches of 22 of 70 test images
      const Index wanted = kSteps + 4 * kBlocks + (is_precise ? kPrecise : 0) + (in_train_mode ? kTrainMode : 0);
      EXPECT_EQ(told, rank_of(MPI_COMM_WORLD) == 0 ? wanted : 0);
    }
  }
}

TEST(Evaluation, IsOfTheLastEpochsAndOfWhatIsWanted) {
  const TrainingResult nothing = run("local", {});
  EXPECT_TRUE(std::isnan(nothing.epochs[3].others.precise));
  EXPECT_TRUE(std::isnan(nothing.epochs[3].others.worst_rank));
  EXPECT_TRUE(std::isnan(nothing.epochs[3].others.train_mode));
  const TrainingResult all = run("local", kAll);
  EXPECT_TRUE(std::isnan(all.epochs[0].others.precise));
  EXPECT_TRUE(std::isnan(all.epochs[0].others.train_mode));
  for (std::size_t i = 1; i < 4; ++i) {
    const OtherAccuracies& others = all.epochs[i].others;
    EXPECT_GE(others.precise, 0);
    EXPECT_GE(others.train_mode, 0);
    EXPECT_EQ(std::isnan(others.mean_statistics), ranks() == 1);
    if (ranks() == 1) continue;
    EXPECT_GE(others.mean_statistics, 0);
    EXPECT_LE(others.worst_rank, others.best_rank);
    EXPECT_LE(others.worst_rank, all.epochs[i].test_accuracy) << "rank 0 is one of them";
    EXPECT_GE(others.best_rank, all.epochs[i].test_accuracy);
  }
}

// One sample, in the first of eight units: rank 0 has it, whatever the number of ranks.
TEST(Evaluation, PassesOverRanksThatNeverHadASample) {
  TrainingOptions options;
  options.network = "mlp";
  options.epochs = 2;
  options.batch = 1;
  options.evaluation = {.compares_ranks = true, .is_precise = false};
  const DataSet few = generate_strokes({.train_count = 40, .test_count = 70, .seed = 20});
  const TrainingResult result = train(few, options, Arm::parse("local"), MPI_COMM_WORLD, {});
  if (ranks() == 1) return;
  for (const EpochRecord& epoch : result.epochs) {
    EXPECT_EQ(epoch.others.mean_statistics, epoch.test_accuracy);
    EXPECT_EQ(epoch.others.worst_rank, epoch.test_accuracy);
    EXPECT_EQ(epoch.others.best_rank, epoch.test_accuracy);
  }
}

TEST(Evaluation, OfSyncIsThatOfSingle) {
  const TrainingResult single = run("single", kAll);
  const TrainingResult sync = run("sync", kAll);
  EXPECT_EQ(single.epochs[3].others.precise, sync.epochs[3].others.precise);
  EXPECT_EQ(single.epochs[3].others.train_mode, sync.epochs[3].others.train_mode);
  EXPECT_TRUE(std::isnan(sync.epochs[3].others.mean_statistics)) << "all ranks have the same";
}

}  // namespace
}  // namespace syncbn::train
