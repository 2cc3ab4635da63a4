// SPDX-License-Identifier: MIT
// How often the layer talks: counted through the MPI profiling interface.
#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/layer_case.hpp"
#include "support/collective_counter.hpp"

namespace syncbn::testing {
namespace {

LayerCase<float> spread_case() {
  return make_case<float>({.seed = 501, .channels = 64, .spatial = {5}},
                          inputs::split(inputs::Split::first_empty, 12, world_size()));
}

/// Exactly `collectives` of any kind since reset(), and nothing else that talks or makes communicators.
void expect_calls(const char* what, std::int64_t collectives) {
  EXPECT_EQ(CollectiveCounter::total_collectives(), collectives) << what << ": " << CollectiveCounter::summary();
  EXPECT_EQ(CollectiveCounter::total_communicator_calls(), 0) << what << ": " << CollectiveCounter::summary();
  EXPECT_EQ(CollectiveCounter::total_point_to_point(), 0) << what << ": " << CollectiveCounter::summary();
}

TEST(BatchNormMessages, TrainingSendsOneAllReduceInEachPass) {
  const std::int64_t one = world_size() == 1 ? 0 : 1;
  auto layer_case = spread_case();
  BatchNorm layer = make_layer(layer_case);
  const Tensor<float>& x = layer_case.my_x();
  const Tensor<float>& dy = layer_case.my_dy();
  Tensor<float> y = zeros_like<float>(x);
  Tensor<float> dx = zeros_like<float>(x);
  for (int step = 0; step < 3; ++step) {  // the first step is not different
    CollectiveCounter::reset();
    const BatchNormCache cache = layer.forward_train(x.view(), y.view());
    expect_calls("forward_train", one);
    CollectiveCounter::reset();
    layer.backward(cache, dy.view(), dx.view());
    expect_calls("backward", one);
    CollectiveCounter::reset();
    layer.backward(cache, dy.view(), TensorView());
    expect_calls("backward without dx", one);
    CollectiveCounter::reset();
    layer.backward_input(cache, dy.view(), dx.view());
    expect_calls("backward_input", one);
  }
}

TEST(BatchNormMessages, NoOptionAddsAMessage) {
  const std::int64_t two = world_size() == 1 ? 0 : 2;
  auto layer_case = spread_case();
  layer_case.gamma = layer_case.beta = {};
  for (int setting = 0; setting < 4; ++setting) {
    layer_case.options.affine = false;
    layer_case.options.track_running_stats = setting % 2 == 0;
    layer_case.options.parameter_gradients = setting < 2 ? ParameterGradients::global : ParameterGradients::local;
    BatchNorm layer = make_layer(layer_case);
    CollectiveCounter::reset();
    run_step(layer, layer_case);
    expect_calls("a step", two);
  }
}

TEST(BatchNormMessages, EvalAndFrozenAreSilent) {
  auto layer_case = spread_case();
  BatchNorm layer = make_layer(layer_case);
  layer_case.options.track_running_stats = false;
  BatchNorm without_statistics = make_layer(layer_case);
  const Tensor<float>& x = layer_case.my_x();
  Tensor<float> y = zeros_like<float>(x);
  CollectiveCounter::reset();
  layer.forward_eval(x.view(), y.view());
  without_statistics.forward_eval(x.view(), y.view());
  BatchNormCache cache = layer.forward_frozen(x.view(), y.view());
  layer.backward(cache, layer_case.my_dy().view(), y.view());
  expect_calls("eval and frozen", 0);
  layer.forward_again(cache, x.view(), y.view());
  expect_calls("forward again", 0);
}

TEST(BatchNormMessages, AGroupOfOneIsSilent) {
  auto layer_case = spread_case();
  const Communicator groups[] = {Communicator(), Communicator(MPI_COMM_SELF)};
  for (const Communicator& group : groups) {
    BatchNorm layer = make_layer(layer_case, group);
    CollectiveCounter::reset();
    run_step(layer, layer_case);
    expect_calls("a local step", 0);
  }
  CollectiveCounter::reset();
  BatchNorm layer = make_layer(layer_case, Communicator());
  expect_calls("construction for this process alone", 0);
}

// Only a rank that runs one is in it: groups do not wait for each other.
TEST(BatchNormMessages, GroupsAreIndependent) {
  MPI_Comm half = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, world_rank() % 2, 0, &half);
  auto layer_case = spread_case();
  {
    BatchNorm layer = make_layer(layer_case, Communicator(half));
    MPI_Comm_free(&half);  // the layer has its own
    const int steps = world_rank() % 2 == 0 ? 1 : 3;
    for (int step = 0; step < steps; ++step) run_step(layer, layer_case);
    EXPECT_EQ(layer.communicator().size(), (world_size() + 1 - world_rank() % 2) / 2);
  }
}

}  // namespace
}  // namespace syncbn::testing
