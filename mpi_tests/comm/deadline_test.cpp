// SPDX-License-Identifier: MIT
// Ranks that come too late: the same error on all within the deadline, on the late one, too; then the group is over.
#include <chrono>
#include <functional>
#include <limits>
#include <thread>

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/result_bytes.hpp"
#include "support/environment_variable.hpp"

namespace syncbn::testing {
namespace {

constexpr const char* kVariable = "SYNCBN_DEADLINE_SECONDS";
constexpr double kDeadline = 0.4;
constexpr double kAfterDeadline = 1.0;  // what the library promises ...
constexpr double kSlowMachine = 3.0;    // ... and what the machine may add

CommunicatorOptions with_deadline(double seconds) {
  CommunicatorOptions options;
  options.deadline_seconds = seconds;
  return options;
}

void sleep_for(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

class Clock {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// A layer on all ranks that can make steps, and a rank that comes late.
struct Bench {
  explicit Bench(const Communicator& communicator, int late_rank = world_size() - 1)
      : late(late_rank),
        world(communicator),
        layer_case(make_case<float>({.seed = 71, .channels = 6, .spatial = {3}},
                                    inputs::split(inputs::Split::uneven, 4 * world_size(), world_size()))),
        layer(make_layer(layer_case, world)) {}
  StepResult<float> step() { return run_step(layer, layer_case); }
  bool is_late() const { return world_rank() == late; }

  int late;
  Communicator world;
  LayerCase<float> layer_case;
  BatchNorm layer;
};

/// The late rank comes when the others have given up for sure; call() must throw the same on all of them.
void expect_timeout(const Bench& bench, const std::function<void()>& call, const std::string& place,
                    const std::string& limit = "within the deadline of 0.4 s") {
  MPI_Barrier(MPI_COMM_WORLD);
  if (bench.is_late()) sleep_for(kDeadline + kAfterDeadline + 0.3);
  const Clock clock;
  const Caught caught = error_of(call);
  if (!bench.is_late()) {
    EXPECT_GE(clock.seconds(), kDeadline);
  }
  EXPECT_LT(clock.seconds(), (bench.is_late() ? 0.0 : kDeadline) + kAfterDeadline + kSlowMachine);
  const std::string missing =
      "rank " + std::to_string(bench.late) + " of " + std::to_string(world_size()) + " is missing";
  expect_same_error_everywhere(caught, ErrorCode::timeout, {place, missing, limit});
}

/// Whatever is tried on the communicator now says that it is of no use.
void expect_unusable(Bench& bench) {
  Tensor<float> y = bench.layer_case.my_x();
  BatchNormCache cache;
  const std::vector<std::function<void()>> calls = {
      [&] { bench.step(); },
      [&] { bench.layer.begin_forward_train(bench.layer_case.my_x().view(), y.view(), cache); },
      [&] { make_layer(bench.layer_case, bench.world); },
      [&] {
        ReproducibleSum sum;
        sum.all_reduce(bench.world);
      },
      [&] { bench.world.join(); },
      [&] {
        MPI_Request none = MPI_REQUEST_NULL;
        bench.world.wait(none, "[test]");
      },
  };
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const Caught caught = error_of(calls[i]);
    EXPECT_EQ(caught.code, ErrorCode::timeout) << "call " << i << ": " << caught.text;
    EXPECT_NE(caught.text.find("the communicator cannot be used any more, since: "), std::string::npos)
        << "call " << i << ": " << caught.text;
  }
  bench.world.still_here();
  bench.layer.forward_eval(bench.layer_case.my_x().view(), y.view());  // local, as ever
}

class Deadline : public ::testing::Test {
 protected:
  void SetUp() override {
    if (world_size() == 1) GTEST_SKIP() << "nobody to wait for";
  }
};

TEST_F(Deadline, ALateForwardEndsTheGroupButNoOther) {
  for (const Exchange exchange : {Exchange::all_gather, Exchange::all_reduce}) {
    const int late = exchange == Exchange::all_gather ? 0 : world_size() - 1;
    CommunicatorOptions options = with_deadline(kDeadline);
    options.exchange = exchange;
    Bench bench(Communicator(MPI_COMM_WORLD, options), late);
    Bench other((Communicator(MPI_COMM_WORLD)));
    const Bytes first = step_bytes(bench.layer, bench.step());
    const Bytes before = state_bytes(bench.layer);
    expect_timeout(
        bench, [&] { bench.step(); }, "[BatchNorm 'bn' forward] at round 2: ");
    EXPECT_TRUE(same_bits(state_bytes(bench.layer), before)) << "running statistics were written";
    expect_unusable(bench);

    EXPECT_TRUE(same_bits(step_bytes(other.layer, other.step()), first));
    Bench later(Communicator(MPI_COMM_WORLD, options));
    EXPECT_TRUE(same_bits(step_bytes(later.layer, later.step()), first));
  }
}

// It finds the others' messages, so its own round is complete; but they have given up, and so must it.
TEST_F(Deadline, ARankThatComesWhileTheOthersAskForItGivesUpWithThem) {
  for (const int late : {0, world_size() - 1}) {
    Bench bench(Communicator(MPI_COMM_WORLD, with_deadline(kDeadline)), late);
    MPI_Barrier(MPI_COMM_WORLD);
    if (bench.is_late()) sleep_for(kDeadline + 0.25);  // they ask for half a second
    const Caught caught = error_of([&] { bench.step(); });
    expect_same_error_everywhere(caught, ErrorCode::timeout, {"[BatchNorm 'bn' forward] at round 0: ", "0.4 s"});
    expect_unusable(bench);
  }
}

TEST_F(Deadline, ALateBackwardIsNamedAsSuch) {
  Bench bench(Communicator(MPI_COMM_WORLD, with_deadline(kDeadline)));
  const auto step = bench.step();
  Tensor<float> dx = step.dx;
  expect_timeout(
      bench, [&] { bench.layer.backward(step.cache, bench.layer_case.my_dy().view(), dx.view()); },
      "[BatchNorm 'bn' backward] at round 2: ");
  EXPECT_TRUE(same_bits(dx.values, step.dx.values)) << "dx was written";
  expect_unusable(bench);
}

TEST_F(Deadline, LateHalvesFailInFinish) {
  Bench bench(Communicator(MPI_COMM_WORLD, with_deadline(kDeadline)));
  BatchNorm other = make_layer(bench.layer_case, bench.world);
  Tensor<float> y = bench.layer_case.my_x();
  Tensor<float> z = y;
  BatchNormCache cache, other_cache;
  other.begin_forward_train(bench.layer_case.my_x().view(), z.view(), other_cache);
  expect_timeout(
      bench,
      [&] {
        bench.layer.begin_forward_train(bench.layer_case.my_x().view(), y.view(), cache);
        bench.layer.finish_forward_train();
      },
      "[BatchNorm 'bn' forward] at round 0: ");
  const Caught caught = error_of([&] { other.finish_forward_train(); });  // all ranks have begun it
  EXPECT_EQ(caught.code, ErrorCode::timeout) << caught.text;
  EXPECT_TRUE(same_bits(z.values, bench.layer_case.my_x().values)) << "z was written";
  expect_unusable(bench);
}

TEST_F(Deadline, ALateConstructionIsNamedAsSuch) {
  Bench bench(Communicator(MPI_COMM_WORLD, with_deadline(kDeadline)));
  expect_timeout(
      bench, [&] { make_layer(bench.layer_case, bench.world); }, "[BatchNorm construction]");
  expect_unusable(bench);
}

TEST_F(Deadline, ALateReproducibleSumIsNamedAsSuch) {
  Bench bench(Communicator(MPI_COMM_WORLD, with_deadline(kDeadline)), 0);
  ReproducibleSum sum(3);
  expect_timeout(
      bench, [&] { sum.all_reduce(bench.world); }, "[ReproducibleSum]");
  expect_unusable(bench);
}

// A rank that has joined waits like the others, and its absence is noted like theirs.
TEST_F(Deadline, ALateRankIsMissedByThoseThatHaveJoined) {
  Bench bench(Communicator(MPI_COMM_WORLD, with_deadline(kDeadline)));
  expect_timeout(
      bench, [&] { bench.world.join(); }, "[Communicator join]");
  expect_unusable(bench);
}

TEST_F(Deadline, WaitHasItForRequestsOfTheProgram) {
  Bench bench(Communicator(MPI_COMM_WORLD, with_deadline(kDeadline)));
  MPI_Comm own = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &own);
  MPI_Request request = MPI_REQUEST_NULL;
  int sum = 0;
  const int mine = world_rank() + 1;
  const auto begin = [&] { MPI_Iallreduce(&mine, &sum, 1, MPI_INT, MPI_SUM, own, &request); };
  begin();
  bench.world.wait(request, "[gradients] step 11");
  EXPECT_EQ(sum, world_size() * (world_size() + 1) / 2);
  EXPECT_EQ(request, MPI_REQUEST_NULL);

  const auto late = [&] {
    begin();
    bench.world.wait(request, "[gradients] step 12");
  };
  expect_timeout(bench, late, "[gradients] step 12: ");
  expect_unusable(bench);
  MPI_Wait(&request, MPI_STATUS_IGNORE);  // in the end, all have begun it
  MPI_Comm_free(&own);
}

// Notes go out once a second, so the deadline has to be longer.
TEST_F(Deadline, StillHereKeepsTheOthersWaiting) {
  Bench bench(Communicator(MPI_COMM_WORLD, with_deadline(1.6)));
  MPI_Barrier(MPI_COMM_WORLD);
  const Clock clock;
  while (bench.is_late() && clock.seconds() < 3.5) {
    bench.world.still_here();
    sleep_for(0.05);
  }
  const Caught caught = error_of([&] { bench.step(); });
  EXPECT_EQ(caught.code, ErrorCode::none) << caught.text;
  EXPECT_GE(clock.seconds(), 3.4) << "did not wait";
  EXPECT_EQ(bench.layer.num_batches_tracked(), 1);
}

TEST_F(Deadline, TheVariableCountsWithoutAnOption) {
  const EnvironmentVariable variable(kVariable, "0.3");
  Bench by_variable((Communicator(MPI_COMM_WORLD)));
  EXPECT_EQ(by_variable.world.deadline_seconds(), 0.3);
  expect_timeout(
      by_variable, [&] { by_variable.step(); }, "forward", "within the deadline of 0.3 s");
  Bench by_option(Communicator(MPI_COMM_WORLD, with_deadline(kDeadline)));
  EXPECT_EQ(by_option.world.deadline_seconds(), kDeadline);
  expect_timeout(
      by_option, [&] { by_option.step(); }, "forward", "within the deadline of 0.4 s");
}

// The first one to give up decides for all, and its deadline is the one that has passed.
TEST_F(Deadline, MayDifferBetweenRanks) {
  const int impatient = world_size() == 2 ? 0 : 1;
  Bench bench(Communicator(MPI_COMM_WORLD, with_deadline(world_rank() == impatient ? kDeadline : 50.0)));
  expect_timeout(
      bench, [&] { bench.step(); }, "[BatchNorm 'bn' forward] at round 0: ");
}

TEST(DeadlineOption, ABadValueOnOneRankIsAnErrorOnAll) {
  const int culprit = world_size() - 1;
  const bool is_culprit = world_rank() == culprit;
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double bad : {0.0, -1.5, infinity, -infinity, std::numeric_limits<double>::quiet_NaN()}) {
    const Caught caught = error_of([&] { Communicator(MPI_COMM_WORLD, with_deadline(is_culprit ? bad : 5.0)); });
    expect_same_error_everywhere(
        caught, ErrorCode::option,
        {"deadline_seconds is ", "it must be a number of seconds greater than 0", of_rank(culprit)});
  }
}

TEST(DeadlineOption, ABadVariableOnOneRankIsAnErrorOnAllUnlessThereIsAnOption) {
  const int culprit = world_size() / 2;
  for (const std::string bad : {"soon", "", "0", "-3", "5s", "nan", "inf", "1e999"}) {
    const EnvironmentVariable variable(kVariable, world_rank() == culprit ? bad : "5");
    const Caught caught = error_of([&] { Communicator communicator(MPI_COMM_WORLD); });
    expect_same_error_everywhere(caught, ErrorCode::option,
                                 {"SYNCBN_DEADLINE_SECONDS is '" + bad + "', it must be a number", of_rank(culprit)});
    EXPECT_EQ(Communicator(MPI_COMM_WORLD, with_deadline(5.0)).size(), world_size());
  }
}

}  // namespace
}  // namespace syncbn::testing
