// SPDX-License-Identifier: MIT
// Passes in two halves: many layers in flight, finished in any order, with the bytes of the blocking calls.
#include <algorithm>
#include <chrono>
#include <memory>
#include <numeric>
#include <random>

#include <gtest/gtest.h>

#include "layer/result_bytes.hpp"
#include "support/collective_counter.hpp"

namespace syncbn::testing {
namespace {

/// One layer with its tensors, whatever their type.
class Runner {
 public:
  virtual ~Runner() = default;
  virtual void begin_forward() = 0;
  virtual void begin_backward() = 0;
  virtual void run_blocking_step() = 0;
  virtual BatchNorm& layer() = 0;
  virtual Bytes bytes() const = 0;
};

template <class T>
class TypedRunner final : public Runner {
 public:
  TypedRunner(const LayerCase<T>& layer_case, const Communicator& communicator)
      : case_(layer_case), layer_(make_layer(case_, communicator)) {
    step_.y = zeros_like<T>(case_.my_x());
    step_.dx = zeros_like<T>(case_.my_x());
  }
  void begin_forward() override { layer_.begin_forward_train(case_.my_x().view(), step_.y.view(), step_.cache); }
  void begin_backward() override {
    layer_.begin_backward(step_.cache, case_.my_dy().view(), step_.dx.view(), step_.gradients);
  }
  void run_blocking_step() override {
    layer_.forward_train(case_.my_x().view(), step_.y.view(), step_.cache);
    layer_.backward(step_.cache, case_.my_dy().view(), step_.dx.view(), step_.gradients);
  }
  BatchNorm& layer() override { return layer_; }
  Bytes bytes() const override { return step_bytes(layer_, step_); }

 private:
  LayerCase<T> case_;
  BatchNorm layer_;
  StepResult<T> step_;
};

template <class T>
std::unique_ptr<Runner> make_runner(const inputs::Recipe& recipe, inputs::Split split, const Communicator& group) {
  auto layer_case = make_case<T>(recipe, inputs::split(split, 3 * world_size() + 1, world_size(), recipe.seed));
  layer_case.options.name = "layer " + std::to_string(recipe.seed);
  return std::make_unique<TypedRunner<T>>(layer_case, group);
}

using Runners = std::vector<std::unique_ptr<Runner>>;

/// Layers of different widths, types and splits.
Runners make_runners(const Communicator& group) {
  Runners runners;
  runners.push_back(make_runner<float>({.seed = 1, .channels = 3, .spatial = {2, 2}}, inputs::Split::uneven, group));
  runners.push_back(make_runner<double>({.seed = 2, .channels = 40, .offset = 9}, inputs::Split::first_empty, group));
  runners.push_back(make_runner<bfloat16>({.seed = 3, .channels = 17, .spatial = {5}}, inputs::Split::random, group));
  runners.push_back(make_runner<float16>({.seed = 4, .channels = 1}, inputs::Split::only_last, group));
  runners.push_back(make_runner<float>({.seed = 5, .channels = 600}, inputs::Split::even, group));
  return runners;
}

std::vector<Communicator> communicators() {
  std::vector<Communicator> result = {Communicator(MPI_COMM_WORLD)};
  CommunicatorOptions options;
  options.exchange = Exchange::all_reduce;
  result.emplace_back(MPI_COMM_WORLD, options);
  result.emplace_back(world_rank(), world_size(), gather_with_mpi);
  return result;
}

using Order = std::vector<std::size_t>;

/// As begun, the other way round, and random ones, the same on all ranks.
std::vector<Order> orders(std::size_t layers) {
  Order order(layers);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::vector<Order> result = {order, Order(order.rbegin(), order.rend())};
  std::mt19937 dice(77);
  for (int i = 0; i < 4; ++i) {
    for (std::size_t n = layers - 1; n > 0; --n) std::swap(order[n], order[dice() % (n + 1)]);
    result.push_back(order);
  }
  return result;
}

TEST(BatchNormHalves, AnyOrderOfFinishingGivesTheBytesOfBlockingCalls) {
  for (const Communicator& group : communicators()) {
    const Runners split = make_runners(group);
    const Runners blocking = make_runners(group);
    for (const Order& order : orders(split.size())) {
      for (const auto& runner : split) runner->begin_forward();
      for (const std::size_t i : order) split[i]->layer().finish_forward_train();
      for (const auto& runner : split) runner->begin_backward();
      for (const std::size_t i : order) split[i]->layer().finish_backward();
      for (const auto& runner : blocking) runner->run_blocking_step();
      for (std::size_t i = 0; i < split.size(); ++i) {
        EXPECT_TRUE(same_bits(split[i]->bytes(), blocking[i]->bytes())) << "layer " << i;
      }
    }
  }
}

// Forward of one layer, backward of another, a blocking pass of a third: all in flight at once.
TEST(BatchNormHalves, ForwardAndBackwardOfDifferentLayersMix) {
  const Communicator world(MPI_COMM_WORLD);
  const Runners split = make_runners(world);
  const Runners blocking = make_runners(world);
  for (const auto& runner : blocking) runner->run_blocking_step();
  split[0]->begin_forward();
  split[1]->begin_forward();
  split[0]->layer().finish_forward_train();
  split[0]->begin_backward();
  split[2]->run_blocking_step();
  split[3]->begin_forward();
  split[0]->layer().finish_backward();
  split[3]->layer().finish_forward_train();
  split[1]->layer().finish_forward_train();
  split[3]->begin_backward();
  split[1]->begin_backward();
  split[4]->run_blocking_step();
  split[1]->layer().finish_backward();
  split[3]->layer().finish_backward();
  for (std::size_t i = 0; i < split.size(); ++i) {
    EXPECT_TRUE(same_bits(split[i]->bytes(), blocking[i]->bytes())) << "layer " << i;
  }
}

TEST(BatchNormHalves, TheMessageIsSentByBeginAlone) {
  const Communicator world(MPI_COMM_WORLD);
  const std::int64_t one = world_size() == 1 ? 0 : 1;
  const Runners runners = make_runners(world);
  for (const auto& runner : runners) {
    CollectiveCounter::reset();
    runner->begin_forward();
    EXPECT_EQ(CollectiveCounter::total_collectives(), one) << CollectiveCounter::summary();
    runner->layer().finish_forward_train();
    EXPECT_EQ(CollectiveCounter::total_collectives(), one) << CollectiveCounter::summary();
    CollectiveCounter::reset();
    runner->begin_backward();
    EXPECT_EQ(CollectiveCounter::total_collectives(), one) << CollectiveCounter::summary();
    runner->layer().finish_backward();
    EXPECT_EQ(CollectiveCounter::total_collectives(), one) << CollectiveCounter::summary();
  }
}

/// Asks for up to 20 s.
bool progresses_to_the_end(BatchNorm& layer) {
  const auto begin = std::chrono::steady_clock::now();
  while (!layer.progress()) {
    if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(20)) return false;
  }
  return true;
}

// Rank by rank, each only after the one before it has finished: a finish that waited for a later rank's would hang.
TEST(BatchNormHalves, AfterProgressFinishWaitsForNobody) {
  for (const Exchange exchange : {Exchange::all_gather, Exchange::all_reduce}) {
    CommunicatorOptions options;
    options.exchange = exchange;
    const Runners runners = make_runners(Communicator(MPI_COMM_WORLD, options));
    int token = 0;
    for (const auto& runner : runners) {
      EXPECT_TRUE(runner->layer().progress()) << "nothing is in flight";
      runner->begin_forward();
    }
    for (const auto& runner : runners) EXPECT_TRUE(progresses_to_the_end(runner->layer()));
    if (world_rank() > 0) {
      MPI_Recv(&token, 1, MPI_INT, world_rank() - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    }
    for (const auto& runner : runners) {
      EXPECT_TRUE(runner->layer().progress()) << "once true, it stays true";
      runner->layer().finish_forward_train();
    }
    if (world_rank() + 1 < world_size()) MPI_Send(&token, 1, MPI_INT, world_rank() + 1, 0, MPI_COMM_WORLD);
    for (const auto& runner : runners) runner->begin_backward();
    for (const auto& runner : runners) EXPECT_TRUE(progresses_to_the_end(runner->layer()));
    for (const auto& runner : runners) runner->layer().finish_backward();
  }
}

TEST(BatchNormHalves, ALayerMayBeMovedWithAPassInFlight) {
  auto layer_case = make_case<float>({.seed = 6, .channels = 4}, inputs::split(inputs::Split::even, 9, world_size()));
  const Communicator world(MPI_COMM_WORLD);
  BatchNorm blocking = make_layer(layer_case, world);
  const auto expected = run_step(blocking, layer_case);
  BatchNorm first = make_layer(layer_case, world);
  StepResult<float> step{zeros_like<float>(layer_case.my_x()), zeros_like<float>(layer_case.my_x()), {}, {}};
  first.begin_forward_train(layer_case.my_x().view(), step.y.view(), step.cache);
  BatchNorm second = std::move(first);
  second.finish_forward_train();
  second.begin_backward(step.cache, layer_case.my_dy().view(), step.dx.view(), step.gradients);
  BatchNorm third = std::move(second);
  third.finish_backward();
  EXPECT_TRUE(same_bits(step_bytes(third, step), step_bytes(blocking, expected)));
}

}  // namespace
}  // namespace syncbn::testing
