// SPDX-License-Identifier: MIT
// Eval, frozen, in place, and results that nobody wants.
#include <cmath>

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/layer_case.hpp"

namespace syncbn::testing {
namespace {

template <class T>
class BatchNormModes : public ::testing::Test {};
using ElementTypes = ::testing::Types<float, double, bfloat16, float16>;
TYPED_TEST_SUITE(BatchNormModes, ElementTypes);

template <class T>
LayerCase<T> uneven_case(std::uint64_t seed, Layout layout = Layout::channels_first) {
  return make_case<T>({.seed = seed, .channels = 4, .spatial = {3, 2}, .layout = layout, .offset = 2},
                      inputs::split(inputs::Split::uneven, 13, world_size()));
}

/// A layer whose running statistics are not the initial ones, and those as the oracle's moments.
template <class T>
std::pair<BatchNorm, reference::Moments> layer_with_statistics(const LayerCase<T>& layer_case, Index local_count) {
  BatchNorm layer = make_layer(layer_case);
  reference::Moments moments{local_count, {}, {}};
  for (Index c = 0; c < layer_case.options.num_features; ++c) {
    layer.running_mean().set(c, 1.5 + 0.3 * static_cast<double>(c));
    layer.running_var().set(c, 0.4 + 0.7 * static_cast<double>(c));
    moments.mean.push_back(static_cast<Real>(layer.running_mean()[c]));
    moments.var.push_back(static_cast<Real>(layer.running_var()[c]));
  }
  return {std::move(layer), std::move(moments)};
}

/// y of the rank's own part, with given statistics and their bounds.
template <class T>
void expect_normalized(const LayerCase<T>& layer_case, const reference::Forward& right,
                       const std::vector<tolerance::ChannelBound>& bounds, const Tensor<T>& y) {
  const reference::Parameters parameters = layer_case.parameters();
  EXPECT_TRUE(is_within("y", y, right.y[0], [&](Index n, Index channel, Index s) {
    const auto c = static_cast<std::size_t>(channel);
    return tolerance::y<T>(bounds[c], parameters.gamma_at(channel), right.invstd[c], right.xhat[0].at(n, channel, s),
                           right.y[0].at(n, channel, s));
  }));
}

TYPED_TEST(BatchNormModes, EvalUsesRunningStatisticsAndChangesNothing) {
  for (const Layout layout : {Layout::channels_first, Layout::channels_last}) {
    auto layer_case = uneven_case<TypeParam>(301, layout);
    const Tensor<TypeParam>& x = layer_case.my_x();
    auto [layer, moments] = layer_with_statistics(layer_case, x.shape.samples * x.shape.positions);
    const auto running_mean = values_of(layer.running_mean());
    const auto running_var = values_of(layer.running_var());
    Tensor<TypeParam> y = zeros_like<TypeParam>(x);
    layer.forward_eval(x.view(), y.view());

    SCOPED_TRACE(layer_case.trace());
    const auto right = reference::normalize({convert<Real>(Batch<TypeParam>{x})}, moments, layer_case.parameters());
    expect_normalized(layer_case, right, tolerance::given_statistics(4), y);
    EXPECT_TRUE(same_bits(values_of(layer.running_mean()), running_mean));
    EXPECT_TRUE(same_bits(values_of(layer.running_var()), running_var));
    EXPECT_EQ(layer.num_batches_tracked(), 0);

    Tensor<TypeParam> in_place = x;
    layer.forward_eval(std::as_const(in_place).view(), in_place.view());
    EXPECT_TRUE(same_bits(in_place.values, y.values));
  }
}

TYPED_TEST(BatchNormModes, EvalWithoutRunningStatisticsUsesThoseOfItsOwnBatch) {
  auto layer_case = uneven_case<TypeParam>(302);
  layer_case.options.track_running_stats = false;
  BatchNorm layer = make_layer(layer_case);
  const Tensor<TypeParam>& x = layer_case.my_x();
  Tensor<TypeParam> y = zeros_like<TypeParam>(x);
  layer.forward_eval(x.view(), y.view());

  SCOPED_TRACE(layer_case.trace());
  const Batch<Real> mine = convert<Real>(Batch<TypeParam>{x});
  const auto right = reference::forward(mine, 4, layer_case.parameters());
  expect_normalized(layer_case, right, tolerance::statistics(mine, right, layer_case.options.eps), y);
}

TYPED_TEST(BatchNormModes, FrozenPassesGradientsStraightThrough) {
  auto layer_case = uneven_case<TypeParam>(303);
  Tensor<TypeParam> x = layer_case.my_x();
  const Tensor<TypeParam>& dy = layer_case.my_dy();
  auto [layer, moments] = layer_with_statistics(layer_case, x.shape.samples * x.shape.positions);
  Tensor<TypeParam> y = zeros_like<TypeParam>(x);
  Tensor<TypeParam> dx = zeros_like<TypeParam>(x);
  const BatchNormCache cache = layer.forward_frozen(std::as_const(x).view(), y.view());
  const BatchNormGradients gradients = layer.backward(cache, dy.view(), dx.view());

  SCOPED_TRACE(layer_case.trace());
  const auto parameters = layer_case.parameters();
  const Batch<Real> my_x = convert<Real>(Batch<TypeParam>{x});
  const Batch<Real> my_dy = convert<Real>(Batch<TypeParam>{dy});
  const auto right = reference::normalize(my_x, moments, parameters);
  const auto backward = reference::backward_frozen(my_x, my_dy, right, parameters);
  const auto bounds = tolerance::given_statistics(4);
  const auto sums = tolerance::gradient_sums(my_x, my_dy, right, bounds);
  expect_normalized(layer_case, right, bounds, y);
  EXPECT_EQ(layer.num_batches_tracked(), 0);
  EXPECT_EQ(gradients.scope, ParameterGradients::local);
  EXPECT_TRUE(is_within("dx", dx, backward.dx[0], [&](Index n, Index c, Index s) {
    return tolerance::dx_frozen<TypeParam>(bounds[static_cast<std::size_t>(c)], backward.dx[0].at(n, c, s));
  }));
  EXPECT_TRUE(is_within_channels("dgamma", gradients.dgamma, backward.dgamma, [&](std::size_t c) {
    return tolerance::dgamma<TypeParam>(bounds[c], sums[c], right.invstd[c], backward.dgamma[c]);
  }));
  EXPECT_TRUE(is_within_channels("dbeta", gradients.dbeta, backward.dbeta, [&](std::size_t c) {
    return tolerance::dbeta<TypeParam>(sums[c], backward.dbeta[c]);
  }));

  // y over x, dx over dy: the same bits, as dx needs neither.
  Tensor<TypeParam> gradient = dy;
  const BatchNormCache overwritten = layer.forward_frozen(std::as_const(x).view(), x.view());
  layer.backward_input(overwritten, std::as_const(gradient).view(), gradient.view());
  EXPECT_TRUE(same_bits(x.values, y.values));
  EXPECT_TRUE(same_bits(gradient.values, dx.values));
}

TYPED_TEST(BatchNormModes, FrozenParameterGradientsNeedTheInput) {
  auto layer_case = make_case<TypeParam>({.seed = 304, .channels = 2}, std::vector<Index>(world_size(), 3));
  BatchNorm layer = make_layer(layer_case);
  Tensor<TypeParam>& x = layer_case.my_x();
  const BatchNormCache cache = layer.forward_frozen(std::as_const(x).view(), x.view());
  Tensor<TypeParam> dx = zeros_like<TypeParam>(x);
  const Caught caught = error_of([&] { layer.backward(cache, layer_case.my_dy().view(), dx.view()); });
  EXPECT_EQ(caught.code, ErrorCode::state) << caught.text;
}

TYPED_TEST(BatchNormModes, FrozenNeedsRunningStatistics) {
  auto layer_case = make_case<TypeParam>({.seed = 305, .channels = 2}, std::vector<Index>(world_size(), 3));
  layer_case.options.track_running_stats = false;
  BatchNorm layer = make_layer(layer_case);
  Tensor<TypeParam> y = zeros_like<TypeParam>(layer_case.my_x());
  const Caught caught = error_of([&] { layer.forward_frozen(layer_case.my_x().view(), y.view()); });
  EXPECT_EQ(caught.code, ErrorCode::state) << caught.text;
}

TYPED_TEST(BatchNormModes, ForwardAgainGivesTheSameBitsAndUpdatesNothing) {
  for (const Layout layout : {Layout::channels_first, Layout::channels_last}) {
    auto layer_case = uneven_case<TypeParam>(311, layout);
    BatchNorm layer = make_layer(layer_case);
    const auto wanted = run_step(layer, layer_case);
    SCOPED_TRACE(layer_case.trace());

    Tensor<TypeParam> y = zeros_like<TypeParam>(layer_case.my_x());
    BatchNormCache cache = layer.forward_train(std::as_const(layer_case.my_x()).view(), y.view());
    const std::vector<double> mean = values_of(layer.running_mean());
    const Tensor<TypeParam> x_again = layer_case.my_x();
    y.values.assign(y.values.size(), TypeParam(7.0f));
    layer.forward_again(cache, x_again.view(), y.view());
    EXPECT_TRUE(same_bits(y.values, wanted.y.values));
    EXPECT_TRUE(same_bits(values_of(layer.running_mean()), mean));
    EXPECT_EQ(layer.num_batches_tracked(), 2);

    layer_case.my_x().values.assign(y.values.size(), TypeParam(0.0f));  // the first x is gone
    Tensor<TypeParam> dx = zeros_like<TypeParam>(y);
    layer.backward(cache, std::as_const(layer_case.my_dy()).view(), dx.view());
    EXPECT_TRUE(same_bits(dx.values, wanted.dx.values));

    BatchNormCache empty;
    EXPECT_EQ(error_of([&] { layer.forward_again(empty, x_again.view(), y.view()); }).code, ErrorCode::state);
  }
}

TYPED_TEST(BatchNormModes, TrainingInPlaceGivesTheSameBitsButNeedsAKeptInput) {
  auto layer_case = uneven_case<TypeParam>(306);
  BatchNorm layer = make_layer(layer_case);
  const auto apart = run_step(layer, layer_case);
  SCOPED_TRACE(layer_case.trace());

  Tensor<TypeParam> x = layer_case.my_x();
  Tensor<TypeParam> gradient = layer_case.my_dy();
  BatchNormCache cache = layer.forward_train(std::as_const(x).view(), x.view());
  EXPECT_TRUE(same_bits(x.values, apart.y.values));
  const Caught caught = error_of([&] { layer.backward(cache, std::as_const(gradient).view(), gradient.view()); });
  // Ranks without samples have not overwritten anything, but share the error.
  EXPECT_EQ(caught.code, ErrorCode::state) << caught.text;
  EXPECT_TRUE(is_same_on_all_ranks(caught.text)) << caught.text;
  EXPECT_TRUE(same_bits(gradient.values, layer_case.my_dy().values));

  cache.x = layer_case.my_x().view();
  cache.x_overwritten = false;
  const BatchNormGradients gradients = layer.backward(cache, std::as_const(gradient).view(), gradient.view());
  EXPECT_TRUE(same_bits(gradient.values, apart.dx.values));
  EXPECT_TRUE(same_bits(values_of(gradients.dgamma), values_of(apart.gradients.dgamma)));
}

TYPED_TEST(BatchNormModes, InputGradientMayBeWrittenOverTheOutputGradient) {
  for (const ParameterGradients scope : {ParameterGradients::global, ParameterGradients::local}) {
    auto layer_case = uneven_case<TypeParam>(307, Layout::channels_last);
    layer_case.options.parameter_gradients = scope;
    BatchNorm layer = make_layer(layer_case);
    const auto apart = run_step(layer, layer_case);
    SCOPED_TRACE(layer_case.trace());
    Tensor<TypeParam> gradient = layer_case.my_dy();
    const BatchNormGradients gradients = layer.backward(apart.cache, std::as_const(gradient).view(), gradient.view());
    EXPECT_TRUE(same_bits(gradient.values, apart.dx.values));
    EXPECT_TRUE(same_bits(values_of(gradients.dgamma), values_of(apart.gradients.dgamma)));
    EXPECT_TRUE(same_bits(values_of(gradients.dbeta), values_of(apart.gradients.dbeta)));
  }
}

TYPED_TEST(BatchNormModes, RanksMayWantDifferentPartsOfTheBackwardPass) {
  auto layer_case = uneven_case<TypeParam>(308);
  BatchNorm layer = make_layer(layer_case);
  const auto all = run_step(layer, layer_case);
  SCOPED_TRACE(layer_case.trace());
  for (int shift = 0; shift < 3; ++shift) {
    Tensor<TypeParam> dx = zeros_like<TypeParam>(layer_case.my_x());
    BatchNormGradients gradients;
    switch ((world_rank() + shift) % 3) {
      case 0:  // everything
        layer.backward(all.cache, layer_case.my_dy().view(), dx.view(), gradients);
        EXPECT_TRUE(same_bits(dx.values, all.dx.values));
        break;
      case 1:  // no dx
        layer.backward(all.cache, layer_case.my_dy().view(), TensorView(), gradients);
        break;
      default:  // dx only
        layer.backward_input(all.cache, layer_case.my_dy().view(), dx.view());
        EXPECT_TRUE(same_bits(dx.values, all.dx.values));
        continue;
    }
    EXPECT_TRUE(same_bits(values_of(gradients.dgamma), values_of(all.gradients.dgamma)));
    EXPECT_TRUE(same_bits(values_of(gradients.dbeta), values_of(all.gradients.dbeta)));
  }
}

TYPED_TEST(BatchNormModes, LocalParameterGradientsAddUpToTheGlobalOnes) {
  auto layer_case = uneven_case<TypeParam>(309);
  BatchNorm global = make_layer(layer_case);
  layer_case.options.parameter_gradients = ParameterGradients::local;
  BatchNorm local = make_layer(layer_case);
  const auto whole = run_step(global, layer_case);
  const auto part = run_step(local, layer_case);
  SCOPED_TRACE(layer_case.trace());
  std::vector<double> dgamma = values_of(part.gradients.dgamma);
  // Every rank's part is rounded to the parameters' type; sizes[c] sums their magnitudes.
  std::vector<double> sizes(dgamma.size());
  std::transform(dgamma.begin(), dgamma.end(), sizes.begin(), [](double v) { return std::abs(v); });
  MPI_Allreduce(MPI_IN_PLACE, dgamma.data(), static_cast<int>(dgamma.size()), MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  MPI_Allreduce(MPI_IN_PLACE, sizes.data(), static_cast<int>(sizes.size()), MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  const Expectation<TypeParam> want(layer_case);
  for (std::size_t c = 0; c < dgamma.size(); ++c) {
    const Real bound = 2 * tolerance::dgamma<TypeParam>(want.bounds[c], want.gradient_bounds[c], want.forward.invstd[c],
                                                        want.backward.dgamma[c]) +
                       2 * tolerance::kUnit<tolerance::ParameterOf<TypeParam>> * static_cast<Real>(sizes[c]);
    EXPECT_LE(std::abs(static_cast<Real>(dgamma[c]) - static_cast<Real>(whole.gradients.dgamma[static_cast<Index>(c)])),
              bound);
  }
}

}  // namespace
}  // namespace syncbn::testing
