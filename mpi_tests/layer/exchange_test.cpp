// SPDX-License-Identifier: MIT
// However the ranks' messages become one, the results are the same bytes, and a pass is one message.
#include <functional>
#include <stdexcept>

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/result_bytes.hpp"
#include "support/collective_counter.hpp"
#include "support/environment_variable.hpp"

namespace syncbn::testing {
namespace {

constexpr const char* kVariable = "SYNCBN_EXCHANGE";

CommunicatorOptions options_with(Exchange exchange) {
  CommunicatorOptions options;
  options.exchange = exchange;
  return options;
}

/// A way to make the communicator of all ranks, and the one MPI function that a pass calls then.
struct Way {
  const char* name;
  const char* function;
  std::function<Communicator()> make;
};

std::vector<Way> ways() {
  const auto by_option = [](Exchange exchange) {
    return [exchange] { return Communicator(MPI_COMM_WORLD, options_with(exchange)); };
  };
  const auto by_variable = [](const char* value) {
    return [value] {
      const EnvironmentVariable variable(kVariable, value);
      return Communicator(MPI_COMM_WORLD);
    };
  };
  return {{"all_reduce", "MPI_Iallreduce", by_option(Exchange::all_reduce)},
          {"all_gather", "MPI_Iallgather", by_option(Exchange::all_gather)},
          {"automatic, small messages", "MPI_Iallgather", by_option(Exchange::automatic)},
          {"all_reduce by the variable", "MPI_Iallreduce", by_variable("all_reduce")},
          {"all_gather by the variable", "MPI_Iallgather", by_variable("all_gather")},
          {"callback", "MPI_Allgather", [] { return Communicator(world_rank(), world_size(), gather_with_mpi); }}};
}

template <class T>
LayerCase<T> case_of(std::uint64_t seed, inputs::Split split, Reduction reduction) {
  auto layer_case = make_case<T>({.seed = seed, .channels = 19, .spatial = {3}, .offset = 20},
                                 inputs::split(split, 2 * world_size() + 1, world_size(), seed));
  layer_case.options.reduction = reduction;
  return layer_case;
}

template <class T>
void expect_same_bytes_from_all_ways(std::uint64_t seed) {
  std::vector<Communicator> communicators;
  for (const Way& way : ways()) communicators.push_back(way.make());
  for (const inputs::Split split : {inputs::Split::uneven, inputs::Split::first_empty, inputs::Split::only_last}) {
    auto layer_case = case_of<T>(seed++, split, Reduction::reproducible);
    SCOPED_TRACE(layer_case.trace());
    std::vector<Bytes> results;
    for (const Communicator& communicator : communicators) {
      BatchNorm layer = make_layer(layer_case, communicator);
      run_step(layer, layer_case);
      const StepResult<T> second = run_step(layer, layer_case);
      results.push_back(step_bytes(layer, second));
      EXPECT_TRUE(is_same_on_all_ranks(channel_bytes(layer, second.cache, second.gradients)));
    }
    for (std::size_t w = 1; w < results.size(); ++w) {
      EXPECT_TRUE(same_bits(results[w], results[0])) << ways()[w].name << " differs from " << ways()[0].name;
    }
  }
}

TEST(BatchNormExchange, AllWaysGiveTheSameBytes) {
  expect_same_bytes_from_all_ways<float>(4100);
  expect_same_bytes_from_all_ways<double>(4200);
  expect_same_bytes_from_all_ways<bfloat16>(4300);
}

TEST(BatchNormExchange, FastSumsAreWithinTheirToleranceAndEqualOnAllRanks) {
  for (const Way& way : ways()) {
    for (const inputs::Split split : {inputs::Split::uneven, inputs::Split::first_empty}) {
      auto layer_case = case_of<float>(4400, split, Reduction::fast);
      SCOPED_TRACE(way.name);
      BatchNorm layer = make_layer(layer_case, way.make());
      const auto step = run_step(layer, layer_case);
      expect_matches_oracle(layer_case, layer, step);
      EXPECT_TRUE(is_same_on_all_ranks(channel_bytes(layer, step.cache, step.gradients)));
    }
  }
}

void expect_one_call(const Way& way, const char* pass) {
  const std::int64_t one = world_size() == 1 ? 0 : 1;
  EXPECT_EQ(CollectiveCounter::count(way.function), one) << way.name << ", " << pass;
  EXPECT_EQ(CollectiveCounter::total_collectives(), one) << pass << ": " << CollectiveCounter::summary();
  EXPECT_EQ(CollectiveCounter::total_communicator_calls(), 0) << pass << ": " << CollectiveCounter::summary();
  EXPECT_EQ(CollectiveCounter::total_point_to_point(), 0) << pass << ": " << CollectiveCounter::summary();
}

TEST(BatchNormExchange, APassIsOneCollective) {
  for (const Way& way : ways()) {
    for (const Reduction reduction : {Reduction::reproducible, Reduction::fast}) {
      auto layer_case = case_of<float>(4500, inputs::Split::uneven, reduction);
      BatchNorm layer = make_layer(layer_case, way.make());
      StepResult<float> step{layer_case.my_x(), layer_case.my_dy(), {}, {}};
      CollectiveCounter::reset();
      layer.forward_train(layer_case.my_x().view(), step.y.view(), step.cache);
      expect_one_call(way, "forward");
      CollectiveCounter::reset();
      layer.backward(step.cache, layer_case.my_dy().view(), step.dx.view(), step.gradients);
      expect_one_call(way, "backward");
    }
  }
}

// Messages of many channels are merged on the way, with the same result.
TEST(BatchNormExchange, AutomaticTakesTheAllReduceForLargeMessages) {
  auto layer_case = make_case<float>({.seed = 4600, .channels = 16384},
                                     inputs::split(inputs::Split::uneven, 2 * world_size(), world_size()));
  std::vector<Bytes> results;
  for (const Exchange exchange : {Exchange::automatic, Exchange::all_gather}) {
    BatchNorm layer = make_layer(layer_case, Communicator(MPI_COMM_WORLD, options_with(exchange)));
    CollectiveCounter::reset();
    results.push_back(step_bytes(layer, run_step(layer, layer_case)));
    const std::int64_t all_reduces = world_size() > 1 && exchange == Exchange::automatic ? 2 : 0;
    EXPECT_EQ(CollectiveCounter::count("MPI_Iallreduce"), all_reduces) << CollectiveCounter::summary();
  }
  EXPECT_TRUE(same_bits(results[0], results[1]));
}

TEST(BatchNormExchange, AnotherExchangeOnOneRankIsAnErrorOnAll) {
  if (world_size() == 1) GTEST_SKIP() << "needs 2 ranks";
  const int culprit = world_size() - 1;
  const bool is_culprit = world_rank() == culprit;
  const Exchange mine = is_culprit ? Exchange::all_reduce : Exchange::all_gather;
  const std::vector<std::string> fragments = {"exchange is all_reduce, rank 0 has ", of_rank(culprit)};
  const Caught by_option = error_of([&] { Communicator(MPI_COMM_WORLD, options_with(mine)); });
  expect_same_error_everywhere(by_option, ErrorCode::mismatch, fragments);

  const EnvironmentVariable variable(kVariable, is_culprit ? std::optional<std::string>("all_reduce") : std::nullopt);
  const Caught by_variable = error_of([&] { Communicator comm(MPI_COMM_WORLD); });
  expect_same_error_everywhere(by_variable, ErrorCode::mismatch, fragments);
}

TEST(BatchNormExchange, AnUnknownExchangeOnOneRankIsAnErrorOnAll) {
  const int culprit = world_size() - 1;
  for (const char* value : {"ring", "", "ALL_GATHER"}) {
    const EnvironmentVariable variable(kVariable, world_rank() == culprit ? value : "automatic");
    const Caught caught = error_of([&] { Communicator comm(MPI_COMM_WORLD); });
    expect_same_error_everywhere(
        caught, ErrorCode::option,
        {"SYNCBN_EXCHANGE is '" + std::string(value) + "'", "automatic, all_reduce or all_gather", of_rank(culprit)});
    // An option counts more than the variable, which is not read then.
    EXPECT_EQ(Communicator(MPI_COMM_WORLD, options_with(Exchange::all_reduce)).size(), world_size());
  }
}

TEST(CallbackTransport, GathersOnceAPassAndAsManyBytesOnEveryRank) {
  std::vector<double> sizes;
  const Communicator communicator(world_rank(), world_size(), [&](const void* mine, std::size_t bytes, void* all) {
    sizes.push_back(static_cast<double>(bytes));
    gather_with_mpi(mine, bytes, all);
  });
  auto layer_case = case_of<float>(4700, inputs::Split::first_empty, Reduction::reproducible);
  BatchNorm layer = make_layer(layer_case, communicator);
  const std::size_t before = sizes.size();
  run_step(layer, layer_case);
  EXPECT_EQ(sizes.size() - before, world_size() == 1 ? 0u : 2u);
  EXPECT_TRUE(is_same_on_all_ranks(sizes));
}

TEST(CallbackTransport, AFailureIsAnMpiErrorAndTheEndOfTheGroup) {
  if (world_size() == 1) GTEST_SKIP() << "a group of one sends nothing";
  bool fails = false;
  const Communicator communicator(world_rank(), world_size(), [&](const void* mine, std::size_t bytes, void* all) {
    if (fails) throw std::runtime_error("the cable is cut");
    gather_with_mpi(mine, bytes, all);
  });
  auto layer_case = case_of<float>(4800, inputs::Split::even, Reduction::reproducible);
  BatchNorm layer = make_layer(layer_case, communicator);
  const Bytes before = state_bytes(layer);
  fails = true;
  const Caught first = error_of([&] { run_step(layer, layer_case); });
  EXPECT_EQ(first.code, ErrorCode::mpi);
  for (const std::string& part :
       {std::string("'bn' forward"), std::string("the cable is cut"), of_rank(world_rank())}) {
    EXPECT_NE(first.text.find(part), std::string::npos) << "'" << part << "' is not in: " << first.text;
  }
  EXPECT_TRUE(same_bits(state_bytes(layer), before));
  fails = false;
  const Caught again = error_of([&] { run_step(layer, layer_case); });
  EXPECT_EQ(again.code, ErrorCode::mpi);
  EXPECT_NE(again.text.find("cannot be used any more"), std::string::npos) << again.text;
}

TEST(CallbackTransport, RefusesRanksThatCannotBe) {
  const auto refuse = [](int rank, int size, const AllGather& all_gather, const char* why) {
    const Caught caught = error_of([&] { Communicator communicator(rank, size, all_gather); });
    EXPECT_EQ(caught.code, ErrorCode::option) << "rank " << rank << " of " << size;
    EXPECT_NE(caught.text.find(why), std::string::npos) << caught.text;
  };
  refuse(-1, 4, gather_with_mpi, "rank -1 of 4 does not exist");
  refuse(4, 4, gather_with_mpi, "rank 4 of 4 does not exist");
  refuse(0, 0, gather_with_mpi, "rank 0 of 0 does not exist");
  refuse(0, -2, gather_with_mpi, "does not exist");
  refuse(1, 2, AllGather(), "has no all-gather");
}

TEST(CallbackTransport, AGroupOfOneNeverCalls) {
  Communicator alone(0, 1, [](const void*, std::size_t, void*) { throw std::runtime_error("called"); });
  auto layer_case = case_of<float>(4900, inputs::Split::even, Reduction::reproducible);
  BatchNorm layer = make_layer(layer_case, alone);
  run_step(layer, layer_case);
  EXPECT_EQ(alone.join(), 0);
}

TEST(CallbackTransport, CannotJoin) {
  if (world_size() == 1) GTEST_SKIP() << "a group of one has nobody to wait for";
  Communicator communicator(world_rank(), world_size(), gather_with_mpi);
  const Caught caught = error_of([&] { communicator.join(); });
  EXPECT_EQ(caught.code, ErrorCode::state);
  EXPECT_NE(caught.text.find("needs MPI"), std::string::npos) << caught.text;
}

}  // namespace
}  // namespace syncbn::testing
