// SPDX-License-Identifier: MIT
// Passes in two halves that go wrong: bad arguments, calls out of turn, layers that are destroyed in flight.
#include <optional>

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/result_bytes.hpp"

namespace syncbn::testing {
namespace {

/// A layer, the same one for blocking calls, and a step's tensors.
struct Bench {
  explicit Bench(std::uint64_t seed, const char* name = "bn")
      : layer_case(make_case<float>({.seed = seed, .channels = 6, .spatial = {3}},
                                    inputs::split(inputs::Split::uneven, 4 * world_size(), world_size()))),
        y(zeros_like<float>(layer_case.my_x())),
        dx(y) {
    layer_case.options.name = name;
    layer.emplace(make_layer(layer_case, world));
  }
  ConstTensorView x() { return layer_case.my_x().view(); }
  ConstTensorView dy() { return layer_case.my_dy().view(); }
  void begin_forward() { layer->begin_forward_train(x(), y.view(), cache); }
  void begin_backward() { layer->begin_backward(cache, dy(), dx.view(), gradients); }

  /// The layer has the bytes of one that has seen nothing but `steps` good steps.
  void expect_works_after(int steps) {
    BatchNorm fresh = make_layer(layer_case, world);
    for (int i = 0; i < steps; ++i) run_step(fresh, layer_case);
    const auto got = run_step(*layer, layer_case);
    const auto want = run_step(fresh, layer_case);
    EXPECT_TRUE(same_bits(step_bytes(*layer, got), step_bytes(fresh, want)));
  }

  Communicator world = Communicator(MPI_COMM_WORLD);
  LayerCase<float> layer_case;
  std::optional<BatchNorm> layer;
  Tensor<float> y, dx;
  BatchNormCache cache;
  BatchNormGradients gradients;
};

/// A StateError of this rank's own.
template <class Call>
void expect_refused(Call&& call, const std::string& fragment) {
  const Caught caught = error_of(call);
  EXPECT_EQ(caught.code, ErrorCode::state) << caught.text;
  EXPECT_NE(caught.text.find(fragment), std::string::npos) << "'" << fragment << "' is not in: " << caught.text;
}

constexpr const char* kUnfinished = "a pass that was begun has not been finished";
constexpr const char* kNotBegun = "was not begun, so it cannot be finished";

TEST(BatchNormHalvesErrors, AWrongTensorIsThrownByFinishForwardEverywhere) {
  Bench bench(61, "conv1"), other(62);
  for (int culprit = 0; culprit < world_size(); ++culprit) {
    const Bytes before = state_bytes(*bench.layer);
    const std::vector<float> y_before = bench.y.values;
    Tensor<float> wrong(2, 5, {3}, Layout::channels_first);
    const bool is_culprit = world_rank() == culprit;
    other.begin_forward();
    const Caught begun = error_of([&] {
      bench.layer->begin_forward_train(is_culprit ? wrong.view() : bench.layer_case.my_x().view(), bench.y.view(),
                                       bench.cache);
    });
    EXPECT_EQ(begun.code, ErrorCode::none) << begun.text;
    const Caught caught = error_of([&] { bench.layer->finish_forward_train(); });
    expect_same_error_everywhere(caught, ErrorCode::shape,
                                 {"[BatchNorm 'conv1' forward] x has 5 channels", of_rank(culprit)});
    EXPECT_TRUE(same_bits(state_bytes(*bench.layer), before)) << "running statistics were written";
    EXPECT_TRUE(same_bits(bench.y.values, y_before)) << "y was written";
    other.layer->finish_forward_train();  // begun before, finished after the error
  }
  bench.expect_works_after(0);
  EXPECT_EQ(other.layer->num_batches_tracked(), world_size());
}

TEST(BatchNormHalvesErrors, AWrongTensorIsThrownByFinishBackwardEverywhere) {
  Bench bench(63);
  bench.begin_forward();
  bench.layer->finish_forward_train();
  for (int culprit = 0; culprit < world_size(); ++culprit) {
    Tensor<float> wrong(bench.y.shape.samples + 1, 6, {3}, Layout::channels_first);
    const bool is_culprit = world_rank() == culprit;
    bench.layer->begin_backward(bench.cache, is_culprit ? wrong.view() : bench.layer_case.my_dy().view(),
                                bench.dx.view(), bench.gradients);
    const Caught caught = error_of([&] { bench.layer->finish_backward(); });
    expect_same_error_everywhere(caught, ErrorCode::shape, {"[BatchNorm 'bn' backward] dy is f32", of_rank(culprit)});
    EXPECT_TRUE(same_bits(bench.dx.values, zeros_like<float>(bench.dx).values)) << "dx was written";
    EXPECT_EQ(bench.gradients.dgamma.size(), 0) << "gradients were written";
  }
  bench.expect_works_after(1);
}

TEST(BatchNormHalvesErrors, CallsOutOfTurnAreRefusedAndTheLayerGoesOn) {
  Bench bench(64);
  BatchNorm& layer = *bench.layer;
  expect_refused([&] { layer.finish_forward_train(); }, kNotBegun);
  expect_refused([&] { layer.finish_backward(); }, kNotBegun);

  bench.begin_forward();
  Tensor<float> elsewhere = bench.y;
  BatchNormCache cache;
  expect_refused([&] { layer.begin_forward_train(bench.x(), elsewhere.view(), cache); }, kUnfinished);
  expect_refused([&] { layer.forward_train(bench.x(), elsewhere.view(), cache); }, kUnfinished);
  expect_refused([&] { layer.begin_backward(cache, bench.dy(), bench.dx.view(), bench.gradients); }, kUnfinished);
  expect_refused([&] { layer.backward(cache, bench.dy(), bench.dx.view(), bench.gradients); }, kUnfinished);
  expect_refused([&] { layer.finish_backward(); }, kNotBegun);
  layer.finish_forward_train();
  expect_refused([&] { layer.finish_forward_train(); }, kNotBegun);

  bench.begin_backward();
  expect_refused([&] { bench.begin_backward(); }, kUnfinished);
  expect_refused([&] { layer.begin_backward_input(bench.cache, bench.dy(), bench.dx.view()); }, kUnfinished);
  expect_refused([&] { bench.begin_forward(); }, kUnfinished);
  expect_refused([&] { layer.finish_forward_train(); }, kNotBegun);
  layer.finish_backward();
  expect_refused([&] { layer.finish_backward(); }, kNotBegun);

  const StepResult<float> got{bench.y, bench.dx, bench.cache, bench.gradients};
  BatchNorm fresh = make_layer(bench.layer_case, bench.world);
  const auto want = run_step(fresh, bench.layer_case);
  EXPECT_TRUE(same_bits(step_bytes(layer, got), step_bytes(fresh, want))) << "a refused call disturbed the pass";
  bench.expect_works_after(1);
}

TEST(BatchNormHalvesErrors, EvalAndFrozenPassesMayRunInBetween) {
  Bench bench(65);
  BatchNorm& layer = *bench.layer;
  BatchNorm fresh = make_layer(bench.layer_case, bench.world);
  Tensor<float> eval = bench.y, frozen = bench.y, want_eval = bench.y;
  fresh.forward_eval(bench.x(), want_eval.view());

  bench.begin_forward();
  layer.forward_eval(bench.x(), eval.view());
  const BatchNormCache cache = layer.forward_frozen(bench.x(), frozen.view());
  layer.finish_forward_train();
  EXPECT_TRUE(same_bits(eval.values, want_eval.values));
  EXPECT_TRUE(same_bits(frozen.values, want_eval.values));
  bench.begin_backward();
  layer.forward_eval(bench.x(), eval.view());
  expect_refused([&] { layer.backward(cache, bench.dy(), frozen.view()); }, kUnfinished);  // it uses the same sums
  layer.finish_backward();

  const auto want = run_step(fresh, bench.layer_case);
  const StepResult<float> got{bench.y, bench.dx, bench.cache, bench.gradients};
  EXPECT_TRUE(same_bits(step_bytes(layer, got), step_bytes(fresh, want)));
}

TEST(BatchNormHalvesErrors, EvalWithTheBatchsOwnStatisticsIsRefusedInBetween) {
  Bench bench(66);
  LayerCase<float> layer_case = bench.layer_case;
  layer_case.options.track_running_stats = false;
  BatchNorm layer = make_layer(layer_case, bench.world);
  layer.begin_forward_train(bench.x(), bench.y.view(), bench.cache);
  expect_refused([&] { layer.forward_eval(bench.x(), bench.dx.view()); }, kUnfinished);
  layer.finish_forward_train();
  layer.forward_eval(bench.x(), bench.dx.view());
}

TEST(BatchNormHalvesErrors, AFrozenBackwardPassHasHalvesToo) {
  Bench bench(67);
  Tensor<float> dx = bench.dx;
  BatchNormCache cache = bench.layer->forward_frozen(bench.x(), bench.y.view());
  const BatchNormGradients want = bench.layer->backward(cache, bench.dy(), dx.view());
  bench.layer->begin_backward(cache, bench.dy(), bench.dx.view(), bench.gradients);
  EXPECT_TRUE(bench.layer->progress());
  expect_refused([&] { bench.begin_forward(); }, kUnfinished);
  bench.layer->finish_backward();
  EXPECT_TRUE(same_bits(bench.dx.values, dx.values));
  EXPECT_EQ(values_of(bench.gradients.dgamma), values_of(want.dgamma));
  // No message, so nobody else is told of a wrong argument, and it need not wait for finish_backward().
  Tensor<float> wrong(1, 5, {3}, Layout::channels_first);
  const Caught caught =
      error_of([&] { bench.layer->begin_backward(cache, wrong.view(), bench.dx.view(), bench.gradients); });
  EXPECT_EQ(caught.code, ErrorCode::shape) << caught.text;
  expect_refused([&] { bench.layer->finish_backward(); }, kNotBegun);
  bench.expect_works_after(0);
}

// The layer's own channel is lost with it; the communicator and its other layers are not.
TEST(BatchNormHalvesErrors, ALayerMayBeDestroyedInFlightOnAllRanks) {
  for (const Exchange exchange : {Exchange::all_gather, Exchange::all_reduce}) {
    CommunicatorOptions options;
    options.exchange = exchange;
    Bench bench(68);
    const Communicator world(MPI_COMM_WORLD, options);
    BatchNorm other = make_layer(bench.layer_case, world);
    {
      BatchNorm doomed = make_layer(bench.layer_case, world);
      doomed.begin_forward_train(bench.x(), bench.y.view(), bench.cache);
    }
    BatchNorm fresh = make_layer(bench.layer_case, bench.world);
    const auto want = run_step(fresh, bench.layer_case);
    BatchNorm later = make_layer(bench.layer_case, world);
    for (BatchNorm* layer : {&other, &later}) {
      const auto got = run_step(*layer, bench.layer_case);
      EXPECT_TRUE(same_bits(step_bytes(*layer, got), step_bytes(fresh, want)));
    }
  }
}

}  // namespace
}  // namespace syncbn::testing
