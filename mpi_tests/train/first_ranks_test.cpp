// SPDX-License-Identifier: MIT
// Trainings on some of the ranks: the others wait as long as it takes, hear of errors, and never for ever.
#include "train/first_ranks.hpp"

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "support/environment_variable.hpp"
#include "syncbn/error.hpp"
#include "train/collectives.hpp"
#include "train/generator.hpp"
#include "train/watched.hpp"

namespace syncbn::train {
namespace {

constexpr double kDeadline = 1.0;
constexpr double kHang = 5.0;  // well behind twice the deadline

int ranks() { return size_of(MPI_COMM_WORLD); }

const DataSet& data() {
  static const DataSet images = generate_strokes({.train_count = 160, .test_count = 50, .seed = 20});
  return images;
}

TrainingOptions options() {
  TrainingOptions result;
  result.network = "mlp";
  result.epochs = 2;
  result.batch = 8;  // 40 steps
  return result;
}

void sleep_for(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

/// Rank 0 takes so long for its step of this number, of all steps if it is 0.
Observer slow_in(Index step, double seconds) {
  Observer observer;
  observer.on_step = [=](const StepRecord& record) {
    if (step == 0 || record.step == step) sleep_for(seconds);
  };
  return observer;
}

/// What train() comes to: a hash, or an error.
struct Outcome {
  TrainingResult result;
  ErrorCode code = ErrorCode::none;
  std::string text;
};

Outcome train_on(Index count, const char* arm, const Observer& observer = {}, const Continuation& continuation = {}) {
  Outcome outcome;
  try {
    const FirstRanks first(count, MPI_COMM_WORLD);
    outcome.result = first.train(data(), options(), Arm::parse(arm), observer, continuation);
  } catch (const Error& error) {
    outcome.code = error.code();
    outcome.text = error.what();
  }
  return outcome;
}

/// A world with a short deadline for the messages of the trainer and of its layers.
class Watched {
 public:
  Watched() : variable_("SYNCBN_DEADLINE_SECONDS", std::to_string(kDeadline)) {
    watch_over(MPI_COMM_WORLD, Communicator(MPI_COMM_WORLD));
  }
  ~Watched() { watch_no_more(MPI_COMM_WORLD); }

 private:
  syncbn::testing::EnvironmentVariable variable_;
};

TEST(FirstRanks, TrainSyncToTheSameBitsWhateverTheirNumber) {
  const std::uint64_t hash = train(data(), options(), Arm::parse("single"), MPI_COMM_WORLD, {}).weights_hash;
  for (Index count = 1; count <= ranks(); ++count) {
    const Outcome sync = train_on(count, "sync");
    EXPECT_EQ(sync.text, "");
    EXPECT_EQ(sync.result.weights_hash, hash) << count;
    EXPECT_EQ(sync.result.step_losses.size(), 40u);
    EXPECT_EQ(hash_of(sync.result.parameters, sync.result.running_stats), hash) << "the weights of this rank";
  }
}

TEST(FirstRanks, TrainLocalAsIfTheyWereAll) {
  if (ranks() < 3) GTEST_SKIP() << "needs two that train and one that waits";
  MPI_Comm two = MPI_COMM_NULL;
  const int rank = rank_of(MPI_COMM_WORLD);
  check(MPI_Comm_split(MPI_COMM_WORLD, rank < 2 ? 0 : 1, rank, &two), "MPI_Comm_split");
  std::uint64_t hash =
      train(data(), options(), Arm::parse("local"), two, {}).weights_hash;  // of 1 or 2 others elsewhere
  broadcast(MPI_COMM_WORLD, hash);
  MPI_Comm_free(&two);
  EXPECT_EQ(train_on(2, "local").result.weights_hash, hash);
  EXPECT_NE(train_on(3, "local").result.weights_hash, hash);
  EXPECT_EQ(train_on(2, "group:3").result.weights_hash, train_on(2, "sync").result.weights_hash);
}

TEST(FirstRanks, AreWaitedForLongerThanTheDeadline) {
  const Watched watched;
  const Outcome outcome = train_on(1, "sync", slow_in(0, 0.08));  // 3.2 s
  EXPECT_EQ(outcome.text, "");
  EXPECT_EQ(outcome.result.step_losses.size(), 40u);
}

TEST(FirstRanks, ThrowTheirErrorOnAll) {
  const Watched watched;
  Outcome outcome;
  try {
    const FirstRanks first(1, MPI_COMM_WORLD);
    first.train(data(), options(), {Arm::Kind::group, 0}, {}, {});  // the layer of rank 0 alone sees that
  } catch (const Error& error) {
    outcome.code = error.code();
    outcome.text = error.what();
  }
  EXPECT_EQ(outcome.code, ErrorCode::option) << outcome.text;
  EXPECT_EQ(train_on(1, "sync").text, "") << "the ranks are in step";
}

TEST(FirstRanks, StopAtTheWishOfAnyThatTrain) {
  const Index count = std::max(1, ranks() - 1);
  Index steps = 0;
  Continuation continuation;
  continuation.wants_stop = [&] { return rank_of(MPI_COMM_WORLD) == count - 1 && ++steps == 5; };
  const Outcome outcome = train_on(count, "local", {}, continuation);
  EXPECT_TRUE(outcome.result.stopped);
  EXPECT_EQ(outcome.result.step_losses.size(), 5u);
}

/// On all ranks: how long it took one that was there all the time to hear of a missing one, and what it heard. The last rank,
/// which has nothing to do but wait, does not come before that.
Outcome hear_of_last_rank(const std::function<void()>& train, double& seconds) {
  Outcome outcome;
  const bool is_late = rank_of(MPI_COMM_WORLD) == ranks() - 1;
  if (is_late) sleep_for(kHang);
  const auto begin = std::chrono::steady_clock::now();
  try {
    train();
  } catch (const Error& error) {
    outcome.code = error.code();
    outcome.text = error.what();
  }
  seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (!is_late) sleep_for(kHang);  // until it has been told
  return outcome;
}

TEST(RanksThatWait, AreMissedWhileOthersTrain) {
  if (ranks() < 2) GTEST_SKIP() << "needs one that waits";
  const Watched watched;
  const FirstRanks first(ranks() - 1, MPI_COMM_WORLD);
  double seconds = 0;
  const Outcome outcome = hear_of_last_rank(
      [&] { first.train(data(), options(), Arm::parse("sync"), slow_in(0, 0.2), {}); }, seconds);  // for 8 s
  const std::string last = std::to_string(ranks() - 1);
  EXPECT_EQ(outcome.code, ErrorCode::timeout);
  EXPECT_EQ(outcome.text, "[training on " + last + " of " + std::to_string(ranks()) + " ranks]: rank " + last + " of " +
                              std::to_string(ranks()) + " is missing: no answer within the deadline of 1 s");
  EXPECT_LT(seconds, kDeadline + 1.5);
}

TEST(RanksThatWait, AreMissedWhileRank0TrainsAlone) {
  if (ranks() < 2) GTEST_SKIP() << "needs one that waits";
  const Watched watched;
  double seconds = 0;
  const Outcome outcome = hear_of_last_rank(
      [&] { train(data(), options(), Arm::parse("single"), MPI_COMM_WORLD, slow_in(0, 0.2)); }, seconds);
  EXPECT_EQ(outcome.code, ErrorCode::timeout);
  EXPECT_EQ(outcome.text, "[training on rank 0]: rank " + std::to_string(ranks() - 1) + " of " +
                              std::to_string(ranks()) + " is missing: no answer within the deadline of 1 s");
  EXPECT_LT(seconds, kDeadline + 1.5);
}

TEST(RanksThatWait, AreMissedAtTheEndOfAShortTraining) {
  if (ranks() < 3) GTEST_SKIP() << "needs one that waits and is there";
  const Watched watched;
  double seconds = 0;
  const Outcome outcome =
      hear_of_last_rank([&] { train(data(), options(), Arm::parse("single"), MPI_COMM_WORLD, {}); }, seconds);
  EXPECT_EQ(outcome.code, ErrorCode::timeout);
  EXPECT_NE(outcome.text.find("rank " + std::to_string(ranks() - 1) + " of "), std::string::npos) << outcome.text;
  EXPECT_LT(seconds, kDeadline + 1.5);
}

// Rank 0 hangs for a while. Who trains with it says so, and where; who waits has the end of it, too.
TEST(FirstRanksThatAreMissing, LeaveNobodyWaiting) {
  if (ranks() < 3) GTEST_SKIP() << "needs two that train and one that waits";
  const Watched watched;
  const auto begin = std::chrono::steady_clock::now();
  const Outcome outcome = train_on(2, "sync", slow_in(3, kHang));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  EXPECT_EQ(outcome.code, ErrorCode::timeout) << outcome.text;
  if (rank_of(MPI_COMM_WORLD) == 1) {
    EXPECT_NE(outcome.text.find("rank 0 of 2 is missing"), std::string::npos) << outcome.text;
  }
  if (rank_of(MPI_COMM_WORLD) > 0) {
    EXPECT_LT(seconds, kHang);
  }
  if (rank_of(MPI_COMM_WORLD) > 1) {
    EXPECT_GT(seconds, 2 * kDeadline);
  }
  sleep_for(rank_of(MPI_COMM_WORLD) == 0 ? 0 : kHang);  // until rank 0 has been told
}

}  // namespace
}  // namespace syncbn::train
