// SPDX-License-Identifier: MIT
// join(): ranks with different numbers of steps train as if those that are out of data brought empty shards.
#include <algorithm>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/result_bytes.hpp"

namespace syncbn::testing {
namespace {

using Steps = std::vector<int>;  // by rank

std::size_t me() { return static_cast<std::size_t>(world_rank()); }

/// How ranks may run out of data.
std::vector<Steps> step_counts() {
  const auto ranks = static_cast<std::size_t>(world_size());
  std::vector<Steps> all(5, Steps(ranks, 2));
  for (std::size_t r = 0; r < ranks; ++r) {
    all[0][r] = 2 + static_cast<int>(r);
    all[1][r] = 1 + static_cast<int>(ranks - r);
    all[2][r] = static_cast<int>(5.0 * inputs::uniform(81, r));
    all[3][r] = r == ranks / 2 ? 4 : 0;
  }
  return all;  // and [4]: all are done at once
}

/// The lowest rank that is in the last step.
int right_last_rank(const Steps& steps) {
  const auto most = std::max_element(steps.begin(), steps.end());
  return *most == 0 ? 0 : static_cast<int>(most - steps.begin());
}

/// Step s of a training in which rank r brings samples in the first steps[r] steps, an empty shard later.
template <class T>
LayerCase<T> case_of_step(const Steps& steps, int s, std::uint64_t seed, Index channels, Reduction reduction) {
  std::vector<Index> counts;
  for (std::size_t r = 0; r < steps.size(); ++r) counts.push_back(s < steps[r] ? 2 + static_cast<Index>(r % 3) : 0);
  auto result = make_case<T>(
      {.seed = seed + static_cast<std::uint64_t>(s), .channels = channels, .spatial = {2}, .offset = 3}, counts);
  result.options.reduction = reduction;
  result.options.name = "layer" + std::to_string(channels);
  return result;
}

/// Two layers, one f32, one f64.
struct Net {
  Net(const Communicator& world, Reduction kind)
      : reduction(kind), first(layer<float>(world, 3)), second(layer<double>(world, 5)) {}

  template <class T>
  BatchNorm layer(const Communicator& world, Index channels) const {
    return BatchNorm(case_of_step<T>(Steps(1, 0), 0, 0, channels, reduction).options, world);
  }
  Bytes state() const {
    Bytes bytes = state_bytes(first);
    const Bytes more = state_bytes(second);
    bytes.insert(bytes.end(), more.begin(), more.end());
    return bytes;
  }

  Reduction reduction;
  BatchNorm first, second;
};

enum class Calls { blocking, halves };

/// y, dx, statistics and gradients of both layers in one step. Collective.
Bytes run(Net& net, const Steps& steps, int s, Calls calls) {
  auto a = case_of_step<float>(steps, s, 8100, 3, net.reduction);
  auto b = case_of_step<double>(steps, s, 8200, 5, net.reduction);
  StepResult<float> left{zeros_like<float>(a.my_x()), zeros_like<float>(a.my_x()), {}, {}};
  StepResult<double> right{zeros_like<double>(b.my_x()), zeros_like<double>(b.my_x()), {}, {}};
  if (calls == Calls::blocking) {
    left = run_step(net.first, a);
    right = run_step(net.second, b);
  } else {
    net.first.begin_forward_train(a.my_x().view(), left.y.view(), left.cache);
    net.second.begin_forward_train(b.my_x().view(), right.y.view(), right.cache);
    net.second.finish_forward_train();
    net.first.finish_forward_train();
    net.second.begin_backward(right.cache, b.my_dy().view(), right.dx.view(), right.gradients);
    net.first.begin_backward(left.cache, a.my_dy().view(), left.dx.view(), left.gradients);
    net.second.finish_backward();
    net.first.finish_backward();
  }
  Bytes bytes = step_bytes(net.first, left);
  const Bytes more = step_bytes(net.second, right);
  bytes.insert(bytes.end(), more.begin(), more.end());
  return bytes;
}

void expect_as_with_empty_shards(const Communicator& group, Reduction reduction, Calls calls) {
  Communicator world = group;
  for (const Steps& steps : step_counts()) {
    SCOPED_TRACE(::testing::PrintToString(steps));
    Net net(world, reduction), reference(Communicator(MPI_COMM_WORLD), reduction);
    std::vector<Bytes> expected;
    const int most = *std::max_element(steps.begin(), steps.end());
    for (int s = 0; s < most; ++s) expected.push_back(run(reference, steps, s, Calls::blocking));

    for (int s = 0; s < steps[me()]; ++s) {
      EXPECT_TRUE(same_bits(run(net, steps, s, calls), expected[static_cast<std::size_t>(s)])) << "step " << s;
    }
    EXPECT_EQ(world.join(), right_last_rank(steps));
    EXPECT_TRUE(is_same_on_all_ranks(net.state()));
    EXPECT_TRUE(same_bits(net.state(), reference.state()));
    EXPECT_EQ(net.first.num_batches_tracked(), most);

    EXPECT_EQ(world.join(), right_last_rank(steps)) << "a second time, without steps in between";
    const Steps everyone(steps.size(), 1);
    EXPECT_TRUE(same_bits(run(net, everyone, 0, calls), run(reference, everyone, 0, Calls::blocking)))
        << "training goes on after join()";
    EXPECT_EQ(world.join(), 0) << "all had data in the last step";
    EXPECT_TRUE(same_bits(net.state(), reference.state()));
  }
}

TEST(Join, AbsentRanksAreLikeEmptyShards) {
  for (const Reduction reduction : {Reduction::reproducible, Reduction::fast}) {
    for (const Calls calls : {Calls::blocking, Calls::halves}) {
      expect_as_with_empty_shards(Communicator(MPI_COMM_WORLD), reduction, calls);
    }
  }
}

TEST(Join, AbsentRanksAreLikeEmptyShardsInAllReduces) {
  CommunicatorOptions options;
  options.exchange = Exchange::all_reduce;
  for (const Calls calls : {Calls::blocking, Calls::halves}) {
    expect_as_with_empty_shards(Communicator(MPI_COMM_WORLD, options), Reduction::reproducible, calls);
  }
}

// Layers that were not in the last step, or in none, must not name a rank.
TEST(Join, TheLastRankIsThatOfTheLastStepOfAnyLayer) {
  if (world_size() == 1) GTEST_SKIP() << "needs 2 ranks";
  for (int repeat = 0; repeat < 10; ++repeat) {
    Communicator world(MPI_COMM_WORLD);
    Net net(world, Reduction::reproducible);
    BatchNorm unused({.num_features = 2}, world);
    const int last = world_size() - 1;
    Steps steps(static_cast<std::size_t>(world_size()), 1);
    steps.back() = 3;
    if (world_rank() == last) {
      run(net, steps, 0, Calls::blocking);
      for (int s = 1; s < 3; ++s) {  // the second layer has had its last step already
        auto a = case_of_step<float>(steps, s, 8100, 3, Reduction::reproducible);
        run_step(net.first, a);
      }
    } else {
      run(net, steps, 0, Calls::blocking);
    }
    EXPECT_EQ(world.join(), last);
    EXPECT_EQ(world.join(), last) << "nothing has happened since";
  }
}

/// All but the last rank join at once; that one calls fail(), which must throw on it, then goes on and joins, too.
void expect_error_reaches_the_joined(Net& net, Communicator& world, ErrorCode code,
                                     const std::vector<std::string>& fragments, const std::function<void()>& fail) {
  const int last = world_size() - 1;
  Steps steps(static_cast<std::size_t>(world_size()), 0);
  steps.back() = 1;
  const Bytes before = net.state();
  const Caught caught = error_of([&] { world_rank() == last ? fail() : static_cast<void>(world.join()); });
  expect_same_error_everywhere(caught, code, fragments);
  EXPECT_TRUE(same_bits(net.state(), before)) << "running statistics were written";
  if (world_rank() == last) run(net, steps, 0, Calls::blocking);
  EXPECT_EQ(world.join(), last);
  EXPECT_TRUE(is_same_on_all_ranks(net.state()));
  EXPECT_EQ(net.second.num_batches_tracked(), 1);
}

TEST(Join, AWrongArgumentReachesTheJoined) {
  if (world_size() == 1) GTEST_SKIP() << "needs 2 ranks";
  for (const Reduction reduction : {Reduction::reproducible, Reduction::fast}) {
    Communicator world(MPI_COMM_WORLD);
    Net net(world, reduction);
    Tensor<double> wrong(2, 4, {}, Layout::channels_first);
    expect_error_reaches_the_joined(net, world, ErrorCode::shape,
                                    {"[BatchNorm 'layer5' forward] x has 4 channels", of_rank(world_size() - 1)},
                                    [&] { net.second.forward_train(wrong.view(), wrong.view()); });
  }
}

TEST(Join, ANaNUnderThePolicyErrorReachesTheJoined) {
  if (world_size() == 1) GTEST_SKIP() << "needs 2 ranks";
  for (const Reduction reduction : {Reduction::reproducible, Reduction::fast}) {
    Communicator world(MPI_COMM_WORLD);
    Net net(world, reduction);
    BatchNormOptions options = net.second.options();
    options.non_finite = NonFinitePolicy::error;
    net.second = BatchNorm(options, world);
    Tensor<double> x(2, 5, {}, Layout::channels_first);
    x.values[3] = std::numeric_limits<double>::quiet_NaN();
    expect_error_reaches_the_joined(net, world, ErrorCode::non_finite,
                                    {"[BatchNorm 'layer5' forward]", "not finite in channel 3", "rank "},
                                    [&] { net.second.forward_train(x.view(), x.view()); });
  }
}

// An error has ended join() on the others, while the first layer still waits for the last rank there.
TEST(Join, ARankThatHasNotComeBackCannotTrain) {
  if (world_size() == 1) GTEST_SKIP() << "needs 2 ranks";
  Communicator world(MPI_COMM_WORLD);
  Net net(world, Reduction::reproducible);
  Tensor<double> wrong(2, 4, {}, Layout::channels_first);
  const bool is_last = world_rank() == world_size() - 1;
  const auto train = [&] { net.second.forward_train(wrong.view(), wrong.view()); };
  const Caught caught = error_of([&] { is_last ? train() : static_cast<void>(world.join()); });
  EXPECT_EQ(caught.code, ErrorCode::shape) << caught.text;
  if (!is_last) {
    Tensor<float> x(1, 3, {}, Layout::channels_first);
    const Caught refused = error_of([&] { net.first.forward_train(x.view(), x.view()); });
    EXPECT_EQ(refused.code, ErrorCode::state);
    EXPECT_NE(refused.text.find("[BatchNorm 'layer3' forward] this rank has not come back from join()"),
              std::string::npos)
        << refused.text;
  }
  world.join();
  const Steps steps(static_cast<std::size_t>(world_size()), 1);
  run(net, steps, 0, Calls::blocking);
  EXPECT_TRUE(is_same_on_all_ranks(net.state()));
}

// The last rank may already be in join() when the others learn of its error: channels that have had their last round by
// then must not begin another one, in which they would be alone, whether join() or a layer asks for it.
TEST(Join, AnErrorInTheLastStepLeavesNobodyBehind) {
  if (world_size() == 1) GTEST_SKIP() << "needs 2 ranks";
  Communicator world(MPI_COMM_WORLD, {.deadline_seconds = 20.0});
  std::vector<BatchNorm> layers;
  for (int i = 0; i < 6; ++i) layers.emplace_back(BatchNormOptions{.num_features = 2}, world);
  Tensor<float> wrong(2, 4, {}, Layout::channels_first);
  Tensor<float> right(1, 2, {}, Layout::channels_first);
  const bool is_last = world_rank() == world_size() - 1;
  for (int repeat = 0; repeat < 150; ++repeat) {
    BatchNorm& layer = layers[static_cast<std::size_t>(repeat) % layers.size()];
    const auto train = [&] { layer.forward_train(wrong.view(), wrong.view()); };
    const Caught caught = error_of([&] { is_last ? train() : static_cast<void>(world.join()); });
    EXPECT_EQ(caught.code, ErrorCode::shape) << caught.text;
    if (!is_last) {
      for (BatchNorm& any : layers) {
        const Caught refused = error_of([&] { any.forward_train(right.view(), right.view()); });
        ASSERT_EQ(refused.code, ErrorCode::state) << refused.text << ", repeat " << repeat;
      }
    }
    world.join();
    MPI_Barrier(MPI_COMM_WORLD);  // hangs if a rank has not come back
  }
}

TEST(Join, APassInFlightHasToBeFinishedBefore) {
  if (world_size() == 1) GTEST_SKIP() << "a group of one has nobody to wait for";
  Communicator world(MPI_COMM_WORLD);
  Net net(world, Reduction::reproducible), reference(world, Reduction::reproducible);
  const Steps steps(static_cast<std::size_t>(world_size()), 1);
  auto a = case_of_step<float>(steps, 0, 8100, 3, Reduction::reproducible);
  StepResult<float> step{zeros_like<float>(a.my_x()), zeros_like<float>(a.my_x()), {}, {}};
  net.first.begin_forward_train(a.my_x().view(), step.y.view(), step.cache);
  const Caught caught = error_of([&] { world.join(); });
  EXPECT_EQ(caught.code, ErrorCode::state);
  EXPECT_NE(caught.text.find("[BatchNorm 'layer3'"), std::string::npos) << caught.text;
  net.first.finish_forward_train();
  net.first.backward(step.cache, a.my_dy().view(), step.dx.view(), step.gradients);
  const auto want = run_step(reference.first, a);
  EXPECT_TRUE(same_bits(step_bytes(net.first, step), step_bytes(reference.first, want)));
  EXPECT_EQ(world.join(), 0);
}

}  // namespace
}  // namespace syncbn::testing
