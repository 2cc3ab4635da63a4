// SPDX-License-Identifier: MIT
// One training step equals batch normalization of the whole batch, whatever the shapes, the split and the options.
#include <gtest/gtest.h>

#include "layer/layer_case.hpp"

namespace syncbn::testing {
namespace {

template <class T>
class BatchNormStep : public ::testing::Test {};
using ElementTypes = ::testing::Types<float, double, bfloat16, float16>;
TYPED_TEST_SUITE(BatchNormStep, ElementTypes);

constexpr Layout kLayouts[] = {Layout::channels_first, Layout::channels_last};

TYPED_TEST(BatchNormStep, MatchesOracleForEveryShapeLayoutAndSplit) {
  const std::vector<std::vector<Index>> shapes = {{}, {1}, {7}, {3, 5}, {4, 4}, {17}, {2, 3, 11}};
  std::uint64_t seed = 100;
  for (const auto& spatial : shapes) {
    for (const Layout layout : kLayouts) {
      for (const inputs::Split kind : inputs::kSplits) {
        for (const Index channels : {Index{1}, Index{5}}) {
          const inputs::Recipe recipe{
              .seed = ++seed, .channels = channels, .spatial = spatial, .layout = layout, .offset = 3, .scale = 2};
          auto layer_case = make_case<TypeParam>(recipe, inputs::split(kind, 23, world_size(), seed));
          SCOPED_TRACE(inputs::name_of(kind));
          for (const Reduction reduction : {Reduction::reproducible, Reduction::fast}) {
            layer_case.options.reduction = reduction;
            expect_step_matches_oracle(layer_case);
          }
        }
      }
    }
  }
}

TYPED_TEST(BatchNormStep, MatchesOracleForEveryOption) {
  const std::vector<std::pair<const char*, void (*)(BatchNormOptions&)>> settings = {
      {"no affine", [](BatchNormOptions& o) { o.affine = false; }},
      {"no running statistics", [](BatchNormOptions& o) { o.track_running_stats = false; }},
      {"biased running_var", [](BatchNormOptions& o) { o.unbiased_running_var = false; }},
      {"momentum 0.99", [](BatchNormOptions& o) { o.momentum = 0.99; }},
      {"momentum 0", [](BatchNormOptions& o) { o.momentum = 0.0; }},
      {"momentum 1", [](BatchNormOptions& o) { o.momentum = 1.0; }},
      {"cumulative average", [](BatchNormOptions& o) { o.momentum = std::nullopt; }},
      {"local gradients", [](BatchNormOptions& o) { o.parameter_gradients = ParameterGradients::local; }},
      {"eps 1", [](BatchNormOptions& o) { o.eps = 1.0; }},
      {"eps 0", [](BatchNormOptions& o) { o.eps = 0.0; }},
      {"fast", [](BatchNormOptions& o) { o.reduction = Reduction::fast; }},
      {"threads, not equally many", [](BatchNormOptions& o) { o.threads = 1 + world_rank() % 3; }},
      {"fast with threads", [](BatchNormOptions& o) { o.reduction = Reduction::fast, o.threads = 3; }},
      {"error if not finite", [](BatchNormOptions& o) { o.non_finite = NonFinitePolicy::error; }},
  };
  for (const auto& [name, set] : settings) {
    SCOPED_TRACE(name);
    auto layer_case = make_case<TypeParam>({.seed = 7, .channels = 6, .spatial = {5}, .offset = -2},
                                           inputs::split(inputs::Split::uneven, 19, world_size()));
    set(layer_case.options);
    if (!layer_case.options.affine) layer_case.gamma = layer_case.beta = {};
    expect_step_matches_oracle(layer_case);
  }
}

TYPED_TEST(BatchNormStep, MatchesOracleWhenRanksDifferInTheirSpatialExtents) {
  std::vector<std::vector<Index>> spatial;
  std::vector<Index> counts;
  for (int r = 0; r < world_size(); ++r) {
    spatial.push_back({r + 1, 2 * r + 3});
    counts.push_back(3 + (r * r) % 4);
  }
  for (const Layout layout : kLayouts) {
    auto layer_case = make_case<TypeParam>({.seed = 21, .channels = 3, .layout = layout, .offset = 1}, counts, spatial);
    expect_step_matches_oracle(layer_case);
  }
}

TYPED_TEST(BatchNormStep, MatchesOracleWhenRanksHaveOneSampleEach) {
  auto layer_case = make_case<TypeParam>({.seed = 22, .channels = 4}, std::vector<Index>(world_size(), 1));
  expect_step_matches_oracle(layer_case);
}

TYPED_TEST(BatchNormStep, MatchesOneProcessOnConcatenatedBatch) {
  for (const inputs::Split kind : inputs::kSplits) {
    auto layer_case = make_case<TypeParam>({.seed = 31, .channels = 5, .spatial = {3, 3}, .offset = 10},
                                           inputs::split(kind, 29, world_size()));
    BatchNorm spread = make_layer(layer_case);
    const auto mine = run_step(spread, layer_case);
    BatchNorm alone = make_layer(layer_case, Communicator());
    const auto whole = run_step(alone, concatenate(layer_case.x), concatenate(layer_case.dy));

    SCOPED_TRACE(layer_case.trace());
    const Expectation<TypeParam> want(layer_case);
    const auto me = static_cast<std::size_t>(world_rank());
    Index first = 0;
    for (std::size_t r = 0; r < me; ++r) first += layer_case.x[r].shape.samples;
    Tensor<Real> y = zeros_like<Real>(mine.y);
    Tensor<Real> dx = zeros_like<Real>(mine.dx);
    for_each_element(y, [&](Index n, Index c, Index s) {
      y.at(n, c, s) = static_cast<Real>(whole.y.at(first + n, c, s));
      dx.at(n, c, s) = static_cast<Real>(whole.dx.at(first + n, c, s));
    });
    // Both are within one bound of the truth, so within two of each other.
    EXPECT_TRUE(is_within("y", mine.y, y, [&](Index n, Index c, Index s) { return 2 * want.y_bound(me, n, c, s); }));
    EXPECT_TRUE(
        is_within("dx", mine.dx, dx, [&](Index n, Index c, Index s) { return 2 * want.dx_bound(me, n, c, s); }));
    const auto dgamma = values_of(whole.gradients.dgamma);
    EXPECT_TRUE(is_within_channels(
        "dgamma", mine.gradients.dgamma, std::vector<Real>(dgamma.begin(), dgamma.end()), [&](std::size_t c) {
          return 2 * tolerance::dgamma<TypeParam>(want.bounds[c], want.gradient_bounds[c], want.forward.invstd[c],
                                                  want.backward.dgamma[c]);
        }));
    EXPECT_EQ(spread.num_batches_tracked(), alone.num_batches_tracked());
  }
}

// The tests above could not tell synchronized from local statistics if the shards had the same ones; they do not.
TYPED_TEST(BatchNormStep, LocalBatchNormDoesNotMatch) {
  if (world_size() == 1) GTEST_SKIP() << "local is global on one rank";
  auto layer_case = make_case<TypeParam>({.seed = 41, .channels = 4},
                                         inputs::split(inputs::Split::even, 6 * world_size(), world_size()));
  BatchNorm local = make_layer(layer_case, Communicator());
  const auto step = run_step(local, layer_case);
  const Expectation<TypeParam> want(layer_case);
  const auto me = static_cast<std::size_t>(world_rank());
  EXPECT_FALSE(
      is_within("y", step.y, want.forward.y[me], [&](Index n, Index c, Index s) { return want.y_bound(me, n, c, s); }));
  EXPECT_FALSE(is_within("dx", step.dx, want.backward.dx[me],
                         [&](Index n, Index c, Index s) { return want.dx_bound(me, n, c, s); }));
}

TYPED_TEST(BatchNormStep, RunningStatisticsFollowManyBatches) {
  for (const std::optional<double> momentum : {std::optional<double>(0.1), std::optional<double>()}) {
    auto layer_case =
        make_case<TypeParam>({.seed = 51, .channels = 3}, inputs::split(inputs::Split::uneven, 11, world_size()));
    layer_case.options.momentum = momentum;
    BatchNorm layer = make_layer(layer_case);
    reference::Running running(3);
    std::vector<Real> mean_bound(3, 0);
    std::vector<Real> var_bound(3, 0);
    for (std::uint64_t batch = 1; batch <= 8; ++batch) {
      layer_case.x = inputs::batch<TypeParam>(
          {.seed = 60 + batch, .channels = 3, .offset = 5.0 * static_cast<double>(batch)},
          inputs::split(inputs::Split::random, 7 + static_cast<Index>(batch), world_size(), batch));
      Tensor<TypeParam> y = zeros_like<TypeParam>(layer_case.my_x());
      layer.forward_train(std::as_const(layer_case.my_x()).view(), y.view());

      const Batch<Real> x = convert<Real>(layer_case.x);
      const auto forward = reference::forward(x, 3, layer_case.parameters());
      const auto bounds = tolerance::statistics(x, forward, layer_case.options.eps);
      const reference::Running before = running;
      running.update(forward.moments, momentum, true);
      const Real weight = momentum ? Real{*momentum} : 1 / static_cast<Real>(batch);
      const Real count = static_cast<Real>(forward.moments.count);
      for (std::size_t c = 0; c < 3; ++c) {
        mean_bound[c] = tolerance::running<TypeParam>(mean_bound[c], weight, bounds[c].mean, before.mean[c],
                                                      forward.moments.mean[c], running.mean[c]);
        var_bound[c] =
            tolerance::running<TypeParam>(var_bound[c], weight, bounds[c].var * count / (count - 1), before.var[c],
                                          forward.moments.var[c] * count / (count - 1), running.var[c]);
      }
    }
    SCOPED_TRACE(layer_case.trace());
    EXPECT_TRUE(is_within_channels("running_mean", layer.running_mean(), running.mean,
                                   [&](std::size_t c) { return mean_bound[c]; }));
    EXPECT_TRUE(is_within_channels("running_var", layer.running_var(), running.var,
                                   [&](std::size_t c) { return var_bound[c]; }));
    EXPECT_EQ(layer.num_batches_tracked(), 8);
    EXPECT_TRUE(is_same_on_all_ranks(values_of(layer.running_mean())));
    EXPECT_TRUE(is_same_on_all_ranks(values_of(layer.running_var())));
  }
}

TYPED_TEST(BatchNormStep, RepeatsBitForBitAndAgreesOnAllRanks) {
  auto layer_case = make_case<TypeParam>({.seed = 71, .channels = 9, .spatial = {37}, .offset = 100},
                                         inputs::split(inputs::Split::uneven, 20, world_size()));
  BatchNorm first = make_layer(layer_case);
  BatchNorm second = make_layer(layer_case);
  const auto a = run_step(first, layer_case);
  const auto b = run_step(second, layer_case);
  SCOPED_TRACE(layer_case.trace());
  EXPECT_TRUE(same_bits(a.y.values, b.y.values));
  EXPECT_TRUE(same_bits(a.dx.values, b.dx.values));
  EXPECT_TRUE(same_bits(values_of(a.gradients.dgamma), values_of(b.gradients.dgamma)));
  EXPECT_TRUE(same_bits(values_of(a.gradients.dbeta), values_of(b.gradients.dbeta)));
  for (const auto& values : {a.cache.mean, a.cache.var, a.cache.invstd, values_of(a.gradients.dgamma),
                             values_of(a.gradients.dbeta), values_of(first.running_var())}) {
    EXPECT_TRUE(is_same_on_all_ranks(values));
  }
}

/// The case's rank-local tensor at an address that is `bytes` past an aligned one.
template <class T>
class Misaligned {
 public:
  Misaligned(const Tensor<T>& tensor, std::size_t bytes)
      : tensor_(tensor), storage_(tensor.values.size() * sizeof(T) + 64 + bytes) {
    const auto address = reinterpret_cast<std::uintptr_t>(storage_.data());
    data_ = storage_.data() + (64 - address % 64) % 64 + bytes;
    if (!tensor.values.empty()) std::memcpy(data_, tensor.values.data(), tensor.values.size() * sizeof(T));
  }
  TensorView view() { return {data_, DataTypeOf<T>::value, tensor_.shape}; }
  bool has_bits_of(const std::vector<T>& values) const {
    return values.empty() || std::memcmp(data_, values.data(), values.size() * sizeof(T)) == 0;
  }

 private:
  const Tensor<T>& tensor_;
  std::vector<std::byte> storage_;
  std::byte* data_;
};

TYPED_TEST(BatchNormStep, DoesNotDependOnAlignment) {
  for (const Layout layout : kLayouts) {
    auto layer_case = make_case<TypeParam>({.seed = 81, .channels = 7, .spatial = {33}, .layout = layout},
                                           inputs::split(inputs::Split::uneven, 9, world_size()));
    BatchNorm layer = make_layer(layer_case);
    const auto aligned = run_step(layer, layer_case);
    for (const std::size_t bytes : {sizeof(TypeParam), std::size_t{1}}) {
      SCOPED_TRACE(layer_case.trace() + ", " + std::to_string(bytes) + " bytes past alignment");
      Misaligned<TypeParam> x(layer_case.my_x(), bytes);
      Misaligned<TypeParam> dy(layer_case.my_dy(), 3 * bytes);
      Misaligned<TypeParam> y(layer_case.my_x(), 5 * bytes);
      Misaligned<TypeParam> dx(layer_case.my_x(), 7 * bytes);
      const BatchNormCache cache = layer.forward_train(x.view(), y.view());
      const BatchNormGradients gradients = layer.backward(cache, dy.view(), dx.view());
      EXPECT_TRUE(y.has_bits_of(aligned.y.values));
      EXPECT_TRUE(dx.has_bits_of(aligned.dx.values));
      EXPECT_TRUE(same_bits(values_of(gradients.dgamma), values_of(aligned.gradients.dgamma)));
    }
  }
}

}  // namespace
}  // namespace syncbn::testing
