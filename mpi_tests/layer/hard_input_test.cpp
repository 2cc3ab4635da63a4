// SPDX-License-Identifier: MIT
// Inputs that break batch norms: large means, constant channels, one value, nothing at all, NaN.
#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/layer_case.hpp"

namespace syncbn::testing {
namespace {

template <class T>
class BatchNormHardInput : public ::testing::Test {};
using ElementTypes = ::testing::Types<float, double, bfloat16, float16>;
TYPED_TEST_SUITE(BatchNormHardInput, ElementTypes);

/// Has T's range room for x around this mean, and for dx, some 1/sigma or, where T sees a constant, 1/sqrt(eps)?
template <class T>
bool has_range_for(double mean, double sigma) {
  const auto most = static_cast<double>(std::numeric_limits<T>::max());
  return mean + 10 * sigma < most && 1e3 / sigma < most;
}

constexpr Reduction kReductions[] = {Reduction::reproducible, Reduction::fast};

const char* name_of(Reduction reduction) { return reduction == Reduction::fast ? "fast" : "reproducible"; }

/// What must not change.
struct State {
  explicit State(const BatchNorm& layer)
      : running_mean(values_of(layer.running_mean())),
        running_var(values_of(layer.running_var())),
        batches(layer.num_batches_tracked()) {}
  friend bool operator==(const State& a, const State& b) {
    return same_bits(a.running_mean, b.running_mean) && same_bits(a.running_var, b.running_var) &&
           a.batches == b.batches;
  }
  std::vector<double> running_mean, running_var;
  Index batches;
};

TYPED_TEST(BatchNormHardInput, MeanFarFromZeroStaysWithinBounds) {
  for (const double ratio : {1e2, 1e4, 1e6}) {
    for (const double sigma : {1.0, 1e-3}) {
      if (!has_range_for<TypeParam>(ratio * sigma, sigma)) continue;
      for (const std::vector<Index>& spatial : {std::vector<Index>{}, std::vector<Index>{6, 6}}) {
        auto layer_case = make_case<TypeParam>(
            {.seed = 5, .channels = 3, .spatial = spatial, .offset = ratio * sigma, .scale = sigma},
            inputs::split(inputs::Split::uneven, 40, world_size()));
        layer_case.options.eps = 1e-5 * sigma * sigma;
        for (const Reduction reduction : kReductions) {
          layer_case.options.reduction = reduction;
          expect_step_matches_oracle(layer_case);
        }
      }
    }
  }
}

/// One step of a case whose channel 1 is `value` everywhere.
template <class T>
void expect_constant_channel_is_exact(LayerCase<T>& layer_case, T value) {
  SCOPED_TRACE(layer_case.trace() + ", channel 1 is " + ::testing::PrintToString(value) + ", eps " +
               std::to_string(layer_case.options.eps) + ", " + name_of(layer_case.options.reduction));
  inputs::set_channel(layer_case.x, 1, value);
  BatchNorm layer = make_layer(layer_case);
  const auto step = run_step(layer, layer_case);
  EXPECT_EQ(step.cache.mean[1], static_cast<double>(value));
  EXPECT_EQ(step.cache.var[1], 0.0);
  EXPECT_EQ(step.gradients.dgamma[1], 0.0);

  const Expectation<T> want(layer_case);
  const auto me = static_cast<std::size_t>(world_rank());
  // Here x - mean = 0 exactly, so the statistics are exact but for invstd's three roundings.
  const auto exact = tolerance::given_statistics(3);
  const auto sums = tolerance::gradient_sums(want.x, want.dy, want.forward, exact);
  for_each_element(step.y, [&](Index n, Index c, Index s) {
    if (c != 1) return;
    EXPECT_EQ(step.y.at(n, c, s), static_cast<T>(layer_case.beta[1]));
    if (layer_case.options.eps == 0.0) {
      EXPECT_EQ(step.dx.at(n, c, s), T(0));
      return;
    }
    const Real dx = want.backward.dx[me].at(n, c, s);
    const Real bound = tolerance::dx<T>(exact[1], sums[1],
                                        {want.parameters.gamma_at(1), want.forward.invstd[1], want.dy[me].at(n, c, s),
                                         0, dx, want.forward.moments.count});
    EXPECT_LE(std::abs(static_cast<Real>(step.dx.at(n, c, s)) - dx), bound);
  });
}

TYPED_TEST(BatchNormHardInput, ConstantChannelGivesBetaExactly) {
  for (const Reduction reduction : kReductions) {
    for (const double eps : {1e-5, 0.0}) {
      for (const TypeParam value : {TypeParam(0), TypeParam(100), TypeParam(1e7), TypeParam(0.1), TypeParam(-3e30)}) {
        if (!is_finite(value)) continue;
        auto layer_case = make_case<TypeParam>({.seed = 6, .channels = 3, .spatial = {5}},
                                               inputs::split(inputs::Split::random, 17, world_size()));
        layer_case.options.eps = eps;
        layer_case.options.reduction = reduction;
        expect_constant_channel_is_exact(layer_case, value);
      }
    }
  }
}

TYPED_TEST(BatchNormHardInput, VarianceIsNeverNegative) {
  using Limits = std::numeric_limits<TypeParam>;
  const TypeParam big(2.0 / static_cast<double>(Limits::epsilon()));  // its neighbours are integers
  const TypeParam huge(std::min(static_cast<double>(Limits::max()), 1e150));
  const std::vector<std::pair<TypeParam, TypeParam>> pairs = {
      {big, next_after(big, TypeParam(0))},
      {TypeParam(1), next_after(TypeParam(1), TypeParam(2))},
      {TypeParam(-0.1), next_after(TypeParam(-0.1), TypeParam(0))},
      {huge, -huge},
      {huge, Limits::denorm_min()},
      {Limits::denorm_min(), TypeParam(0)},
  };
  for (const auto& [a, b] : pairs) {
    for (const Index every : {Index{1}, Index{2}, Index{3}, Index{1000}}) {  // which positions have b instead of a
      auto layer_case = make_case<TypeParam>({.seed = 8, .channels = 2, .spatial = {19}},
                                             inputs::split(inputs::Split::uneven, 23, world_size()));
      Index k = 0;
      for (Tensor<TypeParam>& part : layer_case.x) {
        for (TypeParam& value : part.values) value = ++k % every == 0 ? b : a;
      }
      for (const Reduction reduction : kReductions) {
        layer_case.options.reduction = reduction;
        SCOPED_TRACE(layer_case.trace() + ", values " + ::testing::PrintToString(a) + " and " +
                     ::testing::PrintToString(b) + ", " + name_of(reduction));
        BatchNorm layer = make_layer(layer_case);
        const auto step = run_step(layer, layer_case);
        for (std::size_t c = 0; c < 2; ++c) {
          EXPECT_GE(step.cache.var[c], 0.0);
          EXPECT_TRUE(std::isfinite(step.cache.var[c]));
          EXPECT_TRUE(std::isfinite(step.cache.invstd[c]));
        }
        for (const TypeParam y : step.y.values) EXPECT_TRUE(is_finite(y));
      }
    }
  }
}

TYPED_TEST(BatchNormHardInput, OneValuePerChannelGivesBetaAndNoGradient) {
  std::vector<Index> counts(static_cast<std::size_t>(world_size()), 0);
  counts.back() = 1;
  auto layer_case = make_case<TypeParam>({.seed = 9, .channels = 4, .offset = 7}, counts);
  BatchNorm layer = make_layer(layer_case);
  layer.running_var().set(2, 0.25);
  const State before(layer);
  const auto step = run_step(layer, layer_case);
  SCOPED_TRACE(layer_case.trace());
  EXPECT_EQ(step.cache.count, 1);
  for_each_element(step.y, [&](Index n, Index c, Index s) {
    EXPECT_EQ(step.y.at(n, c, s), static_cast<TypeParam>(layer_case.beta[static_cast<std::size_t>(c)]));
    EXPECT_EQ(step.dx.at(n, c, s), TypeParam(0));
  });
  // No unbiased estimate exists of one value: running_var stays; running_mean moves.
  EXPECT_TRUE(same_bits(values_of(layer.running_var()), before.running_var));
  EXPECT_EQ(layer.num_batches_tracked(), 1);
  for (Index c = 0; c < 4; ++c) {
    EXPECT_EQ(step.gradients.dgamma[c], 0.0);
    EXPECT_EQ(step.gradients.dbeta[c], static_cast<double>(layer_case.dy.back().at(0, c, 0)));
    EXPECT_EQ(layer.running_mean()[c], static_cast<double>(static_cast<tolerance::ParameterOf<TypeParam>>(
                                           0.1 * static_cast<double>(layer_case.x.back().at(0, c, 0)))));
  }
}

TYPED_TEST(BatchNormHardInput, BatchWithoutValuesChangesNothing) {
  auto layer_case = make_case<TypeParam>({.seed = 10, .channels = 3, .spatial = {2}},
                                         inputs::split(inputs::Split::even, 8, world_size()));
  BatchNorm layer = make_layer(layer_case);
  run_step(layer, layer_case);
  const State before(layer);

  const auto expect_nothing = [&](const char* what, ConstTensorView x, TensorView y, ConstTensorView dy,
                                  TensorView dx) {
    SCOPED_TRACE(what);
    const BatchNormCache cache = layer.forward_train(x, y);
    EXPECT_EQ(cache.count, 0);
    const BatchNormGradients gradients = layer.backward(cache, dy, dx);
    EXPECT_EQ(values_of(gradients.dgamma), std::vector<double>(3, 0.0));
    EXPECT_EQ(values_of(gradients.dbeta), std::vector<double>(3, 0.0));
    EXPECT_TRUE(State(layer) == before);
  };
  Tensor<TypeParam> no_samples(0, 3, {2}, Layout::channels_first);
  Tensor<TypeParam> no_positions(4, 3, {2, 0}, Layout::channels_last);
  expect_nothing("no samples", no_samples.view(), no_samples.view(), no_samples.view(), no_samples.view());
  expect_nothing("no positions", no_positions.view(), no_positions.view(), no_positions.view(), no_positions.view());
  expect_nothing("no tensor", ConstTensorView(), TensorView(), ConstTensorView(), TensorView());
  Tensor<TypeParam>& odd_one = world_rank() % 2 == 0 ? no_samples : no_positions;
  expect_nothing("a mixture", odd_one.view(), odd_one.view(), odd_one.view(), odd_one.view());
}

TYPED_TEST(BatchNormHardInput, EmptyShardMayBeNoTensorOrAnyEmptyOne) {
  std::vector<Index> counts = inputs::split(inputs::Split::first_empty, 10, world_size());
  auto layer_case = make_case<TypeParam>({.seed = 11, .channels = 3, .spatial = {4}}, counts);
  BatchNorm layer = make_layer(layer_case);
  const auto plain = run_step(layer, layer_case);
  expect_matches_oracle(layer_case, layer, plain);

  Tensor<TypeParam> no_positions(6, 3, {0}, Layout::channels_last);
  const std::pair<const char*, TensorView> stand_ins[] = {{"no tensor", TensorView()},
                                                          {"no positions", no_positions.view()}};
  for (const auto& [name, stand_in] : stand_ins) {
    SCOPED_TRACE(layer_case.trace() + ", " + name);
    const bool is_empty = counts[static_cast<std::size_t>(world_rank())] == 0;
    Tensor<TypeParam> y = zeros_like<TypeParam>(layer_case.my_x());
    Tensor<TypeParam> dx = zeros_like<TypeParam>(layer_case.my_x());
    const BatchNormCache cache =
        layer.forward_train(is_empty ? stand_in : layer_case.my_x().view(), is_empty ? stand_in : y.view());
    const BatchNormGradients gradients =
        layer.backward(cache, is_empty ? stand_in : layer_case.my_dy().view(), is_empty ? TensorView() : dx.view());
    EXPECT_TRUE(same_bits(y.values, plain.y.values));
    EXPECT_TRUE(same_bits(dx.values, plain.dx.values));
    EXPECT_TRUE(same_bits(values_of(gradients.dgamma), values_of(plain.gradients.dgamma)));
    EXPECT_TRUE(same_bits(values_of(gradients.dbeta), values_of(plain.gradients.dbeta)));
  }
}

/// A case with one value that is not finite: in channel 1 of sample 1 of the last rank.
template <class T>
LayerCase<T> case_with(T value, Reduction reduction) {
  auto layer_case = make_case<T>({.seed = 12, .channels = 3, .spatial = {9}},
                                 inputs::split(inputs::Split::even, 4 * world_size(), world_size()));
  layer_case.options.reduction = reduction;
  layer_case.options.name = "stem.bn";
  layer_case.x.back().at(1, 1, 4) = value;
  return layer_case;
}

template <class T>
std::vector<T> not_finite() {
  return {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(), -std::numeric_limits<T>::infinity()};
}

TYPED_TEST(BatchNormHardInput, NanMakesItsChannelNanOnAllRanksAndNoOther) {
  for (const Reduction reduction : kReductions) {
    auto clean_case = case_with(TypeParam(1), reduction);
    BatchNorm clean = make_layer(clean_case);
    const auto without = run_step(clean, clean_case);
    for (const TypeParam value : not_finite<TypeParam>()) {
      auto layer_case = case_with(value, reduction);
      SCOPED_TRACE(layer_case.trace() + ", " + ::testing::PrintToString(value) + ", " + name_of(reduction));
      BatchNorm layer = make_layer(layer_case);
      const auto step = run_step(layer, layer_case);
      EXPECT_TRUE(std::isnan(step.cache.var[1]));
      EXPECT_TRUE(std::isnan(step.gradients.dgamma[1]));
      EXPECT_TRUE(std::isnan(layer.running_var()[1]));
      for_each_element(step.y, [&](Index n, Index c, Index s) {
        if (c == 1) {
          EXPECT_TRUE(is_nan(step.y.at(n, c, s)));
          EXPECT_TRUE(is_nan(step.dx.at(n, c, s)));
        } else {
          EXPECT_EQ(step.y.at(n, c, s), without.y.at(n, c, s));
          EXPECT_EQ(step.dx.at(n, c, s), without.dx.at(n, c, s));
        }
      });
      for (const Index c : {Index{0}, Index{2}}) {
        EXPECT_EQ(step.gradients.dgamma[c], without.gradients.dgamma[c]);
        EXPECT_EQ(layer.running_mean()[c], clean.running_mean()[c]);
      }
    }
  }
}

TYPED_TEST(BatchNormHardInput, NotFiniteIsAnErrorOnAllRanksIfThePolicySaysSo) {
  for (const Reduction reduction : kReductions) {
    for (const TypeParam value : not_finite<TypeParam>()) {
      auto layer_case = case_with(value, reduction);
      layer_case.options.non_finite = NonFinitePolicy::error;
      SCOPED_TRACE(layer_case.trace() + ", " + ::testing::PrintToString(value) + ", " + name_of(reduction));
      BatchNorm layer = make_layer(layer_case);
      const State before(layer);
      Tensor<TypeParam> y = zeros_like<TypeParam>(layer_case.my_x());
      const Caught in_forward =
          error_of([&] { layer.forward_train(std::as_const(layer_case.my_x()).view(), y.view()); });
      expect_same_error_everywhere(in_forward, ErrorCode::non_finite, {"[BatchNorm 'stem.bn' forward]", "channel 1"});
      EXPECT_EQ(y.values, std::vector<TypeParam>(y.values.size(), TypeParam(0)));
      EXPECT_TRUE(State(layer) == before);

      layer_case.x.back().at(1, 1, 4) = TypeParam(1);
      auto step = run_step(layer, layer_case);
      expect_matches_oracle(layer_case, layer, step);
      std::fill(step.dx.values.begin(), step.dx.values.end(), TypeParam(0));
      layer_case.dy.front().at(0, 2, 0) = value;
      const Caught in_backward =
          error_of([&] { layer.backward(step.cache, std::as_const(layer_case.my_dy()).view(), step.dx.view()); });
      expect_same_error_everywhere(in_backward, ErrorCode::non_finite, {"[BatchNorm 'stem.bn' backward]", "channel 2"});
      EXPECT_EQ(step.dx.values, std::vector<TypeParam>(step.dx.values.size(), TypeParam(0)));
      if (reduction == Reduction::reproducible && world_size() > 1) {
        EXPECT_NE(in_forward.text.find(of_rank(world_size() - 1)), std::string::npos) << in_forward.text;
        EXPECT_NE(in_backward.text.find(of_rank(0)), std::string::npos) << in_backward.text;
      }
    }
  }
}

}  // namespace
}  // namespace syncbn::testing
