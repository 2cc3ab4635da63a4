// SPDX-License-Identifier: MIT
// What a layer says of its own costs: passes and bytes exactly, times as far as a clock outside can hold them.
#include "syncbn/pass_costs.hpp"

#include <chrono>
#include <memory>
#include <thread>

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/result_bytes.hpp"
#include "support/collective_counter.hpp"

namespace syncbn::testing {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

template <class T>
LayerCase<T> measured_case(Index channels, std::uint64_t seed) {
  auto layer_case = make_case<T>({.seed = seed, .channels = channels, .spatial = {4}, .offset = 2},
                                 inputs::split(inputs::Split::uneven, 12, world_size()));
  layer_case.options.measures_costs = true;
  return layer_case;
}

Index rounded_up(Index bytes) { return (bytes + 7) / 8 * 8; }

/// pass_costs.hpp.
template <class T>
Index documented_bytes(Index channels, Reduction reduction) {
  if (reduction == Reduction::fast) return 88 + 16 * channels;
  return rounded_up(120 + (sizeof(T) == 8 ? 86 : 54) * channels);
}

void expect_sane(const PassCosts& costs) {
  EXPECT_GT(costs.statistics_seconds, 0);
  EXPECT_GE(costs.message_seconds, 0);
  EXPECT_GT(costs.element_seconds, 0);
}

/// Three steps through an all-gather that counts what it is handed.
template <class T>
void expect_documented_bytes(Index channels, Reduction reduction) {
  SCOPED_TRACE(std::to_string(channels) + " channels, reduction " + std::to_string(static_cast<int>(reduction)));
  auto layer_case = measured_case<T>(channels, 701);
  layer_case.options.reduction = reduction;
  const auto handed = std::make_shared<Index>(0);
  const Communicator counting(world_rank(), world_size(), [handed](const void* mine, std::size_t bytes, void* all) {
    *handed += static_cast<Index>(bytes);
    gather_with_mpi(mine, bytes, all);
  });
  BatchNorm counted = make_layer(layer_case, counting);
  BatchNorm over_mpi = make_layer(layer_case);
  *handed = 0;
  for (int step = 0; step < 3; ++step) {
    run_step(counted, layer_case);
    run_step(over_mpi, layer_case);
  }
  const Index message = world_size() > 1 ? documented_bytes<T>(channels, reduction) : 0;
  for (const BatchNorm* layer : {&counted, &over_mpi}) {
    EXPECT_EQ(layer->costs().forward.passes, 3);
    EXPECT_EQ(layer->costs().backward.passes, 3);
    EXPECT_EQ(layer->costs().forward.message_bytes, 3 * message);
    EXPECT_EQ(layer->costs().backward.message_bytes, 3 * message);
  }
  EXPECT_EQ(*handed, 6 * message);
}

TEST(PassCosts, BytesAreThoseOfTheMessages) {
  for (const Index channels : {1, 6, 64}) {
    expect_documented_bytes<float>(channels, Reduction::reproducible);
    expect_documented_bytes<double>(channels, Reduction::reproducible);
    expect_documented_bytes<float>(channels, Reduction::fast);
  }
}

TEST(PassCosts, PartsFitIntoTheTimeOfTheCalls) {
  for (const Activation activation : {Activation::none, Activation::relu}) {
    auto layer_case = measured_case<float>(32, 702);
    layer_case.options.activation = activation;
    BatchNorm layer = make_layer(layer_case);
    const Clock::time_point start = Clock::now();
    for (int step = 0; step < 5; ++step) run_step(layer, layer_case);
    const double elapsed = seconds_since(start);
    const LayerCosts& costs = layer.costs();
    expect_sane(costs.forward);
    expect_sane(costs.backward);
    EXPECT_LE(costs.forward.seconds() + costs.backward.seconds(), elapsed);
    EXPECT_EQ(costs.forward.message_seconds > 0, world_size() > 1);

    layer.reset_costs();
    EXPECT_EQ(layer.costs().forward.passes, 0);
    EXPECT_EQ(layer.costs().backward.seconds(), 0);
  }
}

// A rank that comes late makes the others stand still.
TEST(PassCosts, WaitingForALateRankIsTheMessages) {
  if (world_size() == 1) GTEST_SKIP() << "nobody to wait for";
  constexpr double kLate = 0.2;  // long beside what a rank may wait for a core
  auto layer_case = measured_case<float>(4, 703);
  BatchNorm layer = make_layer(layer_case);
  run_step(layer, layer_case);
  MPI_Barrier(MPI_COMM_WORLD);
  layer.reset_costs();
  if (world_rank() == 0) std::this_thread::sleep_for(std::chrono::duration<double>(kLate));
  Tensor<float> y = zeros_like<float>(layer_case.my_x());
  layer.forward_train(layer_case.my_x().view(), y.view());
  const PassCosts& costs = layer.costs().forward;
  const double least = world_rank() > 0 ? 0.25 * kLate : 0;
  EXPECT_GT(costs.message_seconds, least);
  EXPECT_EQ(layer.costs().backward.passes, 0);
}

TEST(PassCosts, WhatTheProgramDoesInBetweenIsNotCounted) {
  constexpr double kBusy = 0.1;
  auto layer_case = measured_case<float>(4, 704);
  BatchNorm layer = make_layer(layer_case);
  Tensor<float> y = zeros_like<float>(layer_case.my_x());
  BatchNormCache cache;
  const Clock::time_point start = Clock::now();
  layer.begin_forward_train(layer_case.my_x().view(), y.view(), cache);
  EXPECT_EQ(layer.costs().forward.passes, 0);  // in flight
  const Clock::time_point begun = Clock::now();
  while (seconds_since(begun) < kBusy) layer.progress();
  const double between = seconds_since(begun);
  layer.finish_forward_train();
  EXPECT_EQ(layer.costs().forward.passes, 1);
  EXPECT_LE(layer.costs().forward.seconds(), seconds_since(start) - between);
}

TEST(PassCosts, AloneThereIsNoMessage) {
  auto layer_case = measured_case<float>(6, 705);
  BatchNorm layer = make_layer(layer_case, Communicator());
  run_step(layer, layer_case);
  EXPECT_EQ(layer.costs().forward.passes, 1);
  for (const PassCosts& costs : {layer.costs().forward, layer.costs().backward}) {
    EXPECT_EQ(costs.message_bytes, 0);
    EXPECT_EQ(costs.message_seconds, 0);
  }
}

TEST(PassCosts, FailedEvalAndFrozenPassesAreNotIn) {
  auto layer_case = measured_case<float>(6, 706);
  BatchNorm layer = make_layer(layer_case);
  const Tensor<float>& x = layer_case.my_x();
  Tensor<float> y = zeros_like<float>(x);
  Tensor<float> narrow(2, 5, {4}, Layout::channels_first);
  error_of([&] { layer.forward_train(narrow.view(), narrow.view()); });
  layer.forward_eval(x.view(), y.view());
  const BatchNormCache frozen = layer.forward_frozen(x.view(), y.view());
  layer.backward(frozen, layer_case.my_dy().view(), y.view());
  EXPECT_EQ(layer.costs().forward.passes + layer.costs().backward.passes, 0);
  EXPECT_EQ(layer.costs().forward.seconds() + layer.costs().backward.seconds(), 0);
  run_step(layer, layer_case);
  EXPECT_EQ(layer.costs().forward.passes, 1);
  EXPECT_EQ(layer.costs().backward.passes, 1);
}

TEST(PassCosts, MeasuringChangesNoBitAndSendsNothing) {
  auto plain_case = measured_case<float>(6, 707);
  auto measured = plain_case;
  plain_case.options.measures_costs = false;
  measured.options.measures_costs = world_rank() == 0;  // one rank's own affair
  BatchNorm without = make_layer(plain_case);
  BatchNorm with = make_layer(measured);
  CollectiveCounter::reset();
  const auto want = run_step(without, plain_case);
  const std::int64_t calls = CollectiveCounter::total_collectives();
  CollectiveCounter::reset();
  const auto got = run_step(with, measured);
  EXPECT_EQ(CollectiveCounter::total_collectives(), calls);
  EXPECT_TRUE(same_bits(step_bytes(with, got), step_bytes(without, want)));
  EXPECT_EQ(without.costs().forward.passes, 0);
  EXPECT_EQ(without.costs().forward.seconds(), 0);
}

}  // namespace
}  // namespace syncbn::testing
