// SPDX-License-Identifier: MIT
// The published tests of other synchronized batch norms, with their shapes and tolerances, against an
// extended-precision reference of the whole batch; where theirs compare parameters only, here y, dx, dgamma, dbeta and
// running statistics too.
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "layer/layer_case.hpp"

namespace syncbn::testing {
namespace {

/// |got - want| <= atol + rtol * |want|, as in NumPy and PyTorch.
struct Close {
  Real rtol;
  Real atol;
  Real bound(Real want) const { return atol + rtol * std::abs(want); }
};

/// The defaults of torch.testing.assert_close.
template <class T>
constexpr Close kPyTorch = sizeof(T) == 4 ? Close{1.3e-6L, 1e-5L} : Close{1e-7L, 1e-7L};
/// apex/tests/distributed/synced_batchnorm.
template <class T>
constexpr Close kApex = sizeof(T) == 4 ? Close{1e-5L, 1e-5L} : Close{1e-8L, 1e-8L};
/// horovod/test/parallel: numpy.allclose(a, b, 1e-6).
constexpr Close kHorovod = {1e-6L, 1e-8L};
/// chainermn_tests/links_tests: agreement, and what local batch norm must miss.
constexpr Close kChainerMn = {1e-3L, 1e-4L};
constexpr Close kChainerMnNegative = {1e-4L, 1e-5L};

template <class T>
class BatchNormPeers : public ::testing::Test {};
using ElementTypes = ::testing::Types<float, double>;
TYPED_TEST_SUITE(BatchNormPeers, ElementTypes);

template <class T>
void expect_close_to_full_batch(LayerCase<T>& layer_case, Close close) {
  BatchNorm layer = make_layer(layer_case);
  const auto step = run_step(layer, layer_case);
  const Expectation<T> want(layer_case);
  reference::Running running(layer_case.options.num_features);
  running.update(want.forward.moments, layer_case.options.momentum, layer_case.options.unbiased_running_var);

  SCOPED_TRACE(layer_case.trace());
  const auto me = static_cast<std::size_t>(world_rank());
  EXPECT_TRUE(is_within("y", step.y, want.forward.y[me],
                        [&](Index n, Index c, Index s) { return close.bound(want.forward.y[me].at(n, c, s)); }));
  EXPECT_TRUE(is_within("dx", step.dx, want.backward.dx[me],
                        [&](Index n, Index c, Index s) { return close.bound(want.backward.dx[me].at(n, c, s)); }));
  const auto expect_channels = [&](const char* name, const ChannelVector& got, const reference::Channels& right) {
    EXPECT_TRUE(is_within_channels(name, got, right, [&](std::size_t c) { return close.bound(right[c]); }));
  };
  if (layer_case.options.affine) {
    expect_channels("dgamma", step.gradients.dgamma, want.backward.dgamma);
    expect_channels("dbeta", step.gradients.dbeta, want.backward.dbeta);
  }
  expect_channels("running_mean", layer.running_mean(), running.mean);
  expect_channels("running_var", layer.running_var(), running.var);
}

std::vector<Index> equal_counts(Index samples) {
  return std::vector<Index>(static_cast<std::size_t>(world_size()), samples);
}

TYPED_TEST(BatchNormPeers, PyTorchSyncBatchNorm) {
  auto network = make_case<TypeParam>({.seed = 701, .channels = 4, .spatial = {10}}, equal_counts(2));
  expect_close_to_full_batch(network, kPyTorch<TypeParam>);
  network.options.affine = false;
  network.gamma = network.beta = {};
  expect_close_to_full_batch(network, kPyTorch<TypeParam>);
  auto two_dimensional = make_case<TypeParam>({.seed = 702, .channels = 2}, equal_counts(2));
  expect_close_to_full_batch(two_dimensional, kPyTorch<TypeParam>);
  auto single_input = make_case<TypeParam>({.seed = 703, .channels = 4, .spatial = {10}}, equal_counts(1));
  expect_close_to_full_batch(single_input, kPyTorch<TypeParam>);
}

TYPED_TEST(BatchNormPeers, PyTorchDiffInputSizesGradient) {
  std::vector<Index> counts = equal_counts(2);
  for (std::size_t r = 0; r < counts.size(); ++r) counts[r] += static_cast<Index>(r);
  auto layer_case = make_case<TypeParam>({.seed = 704, .channels = 4, .spatial = {10}}, counts);
  expect_close_to_full_batch(layer_case, kPyTorch<TypeParam>);
}

// Rank i has 10^(i+1) positions (here at most 10^4) of constant values, so that almost all of the batch is on the last
// rank.
TYPED_TEST(BatchNormPeers, PyTorchDiffInputSizesRunningValue) {
  std::vector<std::vector<Index>> spatial;
  for (int r = 0; r < world_size(); ++r) spatial.push_back({static_cast<Index>(std::pow(10.0, std::min(r, 3) + 1))});
  auto layer_case = make_case<TypeParam>({.seed = 705, .channels = 2}, equal_counts(2), spatial);
  for (std::size_t r = 0; r < spatial.size(); ++r) {
    const double power = static_cast<double>(r) - 1;
    for_each_element(layer_case.x[r], [&](Index n, Index c, Index s) {
      layer_case.x[r].at(n, c, s) = static_cast<TypeParam>(std::pow(c == 0 ? 0.1 : 0.3, power));
    });
  }
  layer_case.options.momentum = 0.99;
  BatchNorm layer = make_layer(layer_case);
  Tensor<TypeParam> y = zeros_like<TypeParam>(layer_case.my_x());
  for (int step = 0; step < 100; ++step) layer.forward_train(std::as_const(layer_case.my_x()).view(), y.view());

  SCOPED_TRACE(layer_case.trace());
  const auto moments = reference::moments(convert<Real>(layer_case.x), 2);
  const Real count = static_cast<Real>(moments.count);
  const Close close = kPyTorch<TypeParam>;
  for (std::size_t c = 0; c < 2; ++c) {
    const Real unbiased = moments.var[c] * count / (count - 1);
    EXPECT_NEAR(layer.running_mean()[static_cast<Index>(c)], static_cast<double>(moments.mean[c]),
                static_cast<double>(close.bound(moments.mean[c])));
    EXPECT_NEAR(layer.running_var()[static_cast<Index>(c)], static_cast<double>(unbiased),
                static_cast<double>(close.bound(unbiased)));
  }
}

TYPED_TEST(BatchNormPeers, PyTorchChannelsLast) {
  for (const std::vector<Index>& spatial : {std::vector<Index>{4, 4}, std::vector<Index>{4, 4, 4}}) {
    for (const Layout layout : {Layout::channels_first, Layout::channels_last}) {
      auto layer_case =
          make_case<TypeParam>({.seed = 706, .channels = 2, .spatial = spatial, .layout = layout}, equal_counts(2));
      expect_close_to_full_batch(layer_case, kPyTorch<TypeParam>);
    }
  }
}

TYPED_TEST(BatchNormPeers, PyTorchOnlyEmptyInput) {
  std::vector<Index> counts = equal_counts(1);
  if (world_size() > 1) counts[0] = 0;
  auto layer_case = make_case<TypeParam>({.seed = 707, .channels = 2, .spatial = {11, 13}}, counts);
  expect_close_to_full_batch(layer_case, kPyTorch<TypeParam>);
}

TYPED_TEST(BatchNormPeers, ApexSingleGpuUnitTest) {
  for (const Layout layout : {Layout::channels_first, Layout::channels_last}) {
    auto layer_case = make_case<TypeParam>({.seed = 1, .channels = 10, .spatial = {16, 16}, .layout = layout},
                                           inputs::split(inputs::Split::even, 5, world_size()));
    layer_case.options.momentum = 1.0;
    expect_close_to_full_batch(layer_case, kApex<TypeParam>);
  }
}

TYPED_TEST(BatchNormPeers, ApexTwoGpuUnitTest) {
  auto layer_case = make_case<TypeParam>({.seed = 18, .channels = 10, .spatial = {40, 40}},
                                         inputs::split(inputs::Split::even, 32, world_size()));
  expect_close_to_full_batch(layer_case, kApex<TypeParam>);
}

TYPED_TEST(BatchNormPeers, ApexDifferentBatchSize) {
  std::vector<Index> counts = equal_counts(8);
  counts[0] = 16;
  auto layer_case = make_case<TypeParam>({.seed = 19, .channels = 6, .spatial = {8, 8}}, counts);
  for (TypeParam& x : layer_case.x[0].values) x *= 50;
  for (Tensor<TypeParam>& part : layer_case.dy) {  // randint(0, 10)/10 * 2/24
    for (TypeParam& g : part.values)
      g = static_cast<TypeParam>(std::floor(std::fmod(std::abs(g) * 37, 10.0)) / 10 * 2 / 24);
  }
  expect_close_to_full_batch(layer_case, kApex<TypeParam>);
}

// Theirs takes the plain sum as loss, for which dx and dgamma are zero; here the sum is weighted.
TYPED_TEST(BatchNormPeers, HorovodIntegers) {
  for (const Index positions : {Index{2}, Index{1}}) {
    std::vector<Index> spatial;
    if (positions > 1) spatial.push_back(positions);
    auto layer_case = make_case<TypeParam>({.seed = 709, .channels = 4, .spatial = spatial}, equal_counts(1));
    for (std::size_t r = 0; r < layer_case.x.size(); ++r) {
      for_each_element(layer_case.x[r], [&](Index n, Index c, Index s) {
        const Index value = static_cast<Index>(r) * (c + 1) + (positions == 1 ? 1 : s);
        layer_case.x[r].at(n, c, s) = static_cast<TypeParam>(value);
      });
    }
    if (positions == 1 && world_size() == 1) continue;  // one value per channel: nothing to compare
    layer_case.options.affine = false;
    layer_case.gamma = layer_case.beta = {};
    expect_close_to_full_batch(layer_case, kHorovod);
  }
}

TYPED_TEST(BatchNormPeers, OffsetOfTenThousand) {
  auto layer_case = make_case<TypeParam>({.seed = 710, .channels = 3, .spatial = {4}, .offset = 1e4},
                                         inputs::split(inputs::Split::uneven, 30, world_size()));
  expect_close_to_full_batch(layer_case, kPyTorch<TypeParam>);
}

/// relu(bn2(A * relu(bn1(x)))) of one rank's rows, and back from dh2: the part of ChainerMN's network that has batch
/// norm.
class TwoLayers {
 public:
  static constexpr Index kWidth = 3;

  TwoLayers(const Communicator& group, std::uint64_t seed) : bn1_(options(), group), bn2_(options(), group) {
    mix_ = inputs::batch<float>({.seed = seed, .channels = kWidth}, {kWidth}).front();
  }

  /// dgamma1, dbeta1, dgamma2, dbeta2, one after the other.
  std::vector<double> gradients(const Tensor<float>& x, const Tensor<float>& dh2) {
    const Tensor<float> a1 = forward(bn1_, x, cache1_);
    const Tensor<float> x2 = apply(relu(a1), /*transposed=*/false);
    const Tensor<float> a2 = forward(bn2_, x2, cache2_);
    const BatchNormGradients of_2 = backward(bn2_, cache2_, masked(dh2, a2));
    const BatchNormGradients of_1 = backward(bn1_, cache1_, masked(apply(dx_, /*transposed=*/true), a1));
    std::vector<double> all;
    for (const ChannelVector* part : {&of_1.dgamma, &of_1.dbeta, &of_2.dgamma, &of_2.dbeta}) {
      const auto values = values_of(*part);
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  }

 private:
  static BatchNormOptions options() {
    BatchNormOptions result;
    result.num_features = kWidth;
    return result;
  }
  static Tensor<float> forward(BatchNorm& layer, const Tensor<float>& x, BatchNormCache& cache) {
    Tensor<float> y = zeros_like<float>(x);
    layer.forward_train(x.view(), y.view(), cache);
    return y;
  }
  BatchNormGradients backward(BatchNorm& layer, const BatchNormCache& cache, const Tensor<float>& dy) {
    dx_ = zeros_like<float>(dy);
    return layer.backward(cache, dy.view(), dx_.view());
  }
  static Tensor<float> relu(Tensor<float> a) {
    for (float& v : a.values) v = std::max(v, 0.0F);
    return a;
  }
  static Tensor<float> masked(Tensor<float> gradient, const Tensor<float>& a) {
    for (std::size_t i = 0; i < a.values.size(); ++i) gradient.values[i] *= a.values[i] > 0 ? 1.0F : 0.0F;
    return gradient;
  }
  Tensor<float> apply(const Tensor<float>& h, bool transposed) const {
    Tensor<float> result = zeros_like<float>(h);
    for_each_element(h, [&](Index n, Index c, Index) {
      for (Index k = 0; k < kWidth; ++k) {
        result.at(n, c, 0) += (transposed ? mix_.at(k, c, 0) : mix_.at(c, k, 0)) * h.at(n, k, 0);
      }
    });
    return result;
  }

  BatchNorm bn1_, bn2_;
  BatchNormCache cache1_, cache2_;
  Tensor<float> mix_, dx_;
};

/// Rank 0's verdict, as in the original: all entries close.
bool all_close(const std::vector<double>& got, const std::vector<double>& want, Close close) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (!(std::abs(Real{got[i]} - Real{want[i]}) <= close.bound(want[i]))) return false;
  }
  return true;
}

std::vector<double> mean_over_ranks(std::vector<double> values) {
  MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  for (double& v : values) v /= world_size();
  return values;
}

TEST(BatchNormPeers, ChainerMnFourWayComparison) {
  const Communicator world(MPI_COMM_WORLD);
  const auto x = inputs::batch<float>({.seed = 71, .channels = TwoLayers::kWidth}, equal_counts(8));
  const auto dy = inputs::batch<float>({.seed = 72, .channels = TwoLayers::kWidth}, equal_counts(8));
  const Tensor<float> all_x = concatenate(x);
  const Tensor<float> all_dy = concatenate(dy);
  const auto me = static_cast<std::size_t>(world_rank());

  const std::vector<double> full = TwoLayers(Communicator(), 73).gradients(all_x, all_dy);
  std::vector<double> copies = TwoLayers(world, 73).gradients(all_x, all_dy);  // W copies: W times the gradient
  for (double& v : copies) v /= world_size();
  const std::vector<double> sharded = TwoLayers(world, 73).gradients(x[me], dy[me]);
  std::vector<double> local = mean_over_ranks(TwoLayers(Communicator(), 73).gradients(x[me], dy[me]));
  for (double& v : local) v *= world_size();  // the sum over ranks, as `full` has it

  EXPECT_TRUE(all_close(copies, full, kChainerMn));
  EXPECT_TRUE(all_close(sharded, full, kChainerMn));
  if (world_size() > 1) {
    EXPECT_FALSE(all_close(local, full, kChainerMnNegative)) << "local batch norm must not match";
  }
}

// The same two samples as (0, 2), (1, 1) and (2, 0) on two ranks, the others empty. Two addends have one order, so even
// the plain sums of Reduction::fast give one answer.
TYPED_TEST(BatchNormPeers, EmptyShardsGiveTheSameGradients) {
  if (world_size() == 1) GTEST_SKIP() << "needs 2 ranks";
  const inputs::Recipe recipe{.seed = 711, .channels = 5, .spatial = {3}, .offset = 1};
  std::vector<std::vector<TypeParam>> dx;  // of both samples, per split
  std::vector<std::vector<double>> parameters;
  for (const Index on_first : {Index{0}, Index{1}, Index{2}}) {
    std::vector<Index> counts = equal_counts(0);
    counts.front() = on_first;
    counts.back() = 2 - on_first;
    auto layer_case = make_case<TypeParam>(recipe, counts);
    BatchNorm layer = make_layer(layer_case);
    const auto step = run_step(layer, layer_case);
    std::vector<double> both(2 * 15, 0.0);
    const std::size_t first = world_rank() == 0 ? 0 : static_cast<std::size_t>(on_first) * 15;
    std::copy(step.dx.values.begin(), step.dx.values.end(), both.begin() + static_cast<std::ptrdiff_t>(first));
    MPI_Allreduce(MPI_IN_PLACE, both.data(), static_cast<int>(both.size()), MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    dx.emplace_back(both.begin(), both.end());
    parameters.push_back(values_of(step.gradients.dgamma));
    const auto dbeta = values_of(step.gradients.dbeta);
    parameters.back().insert(parameters.back().end(), dbeta.begin(), dbeta.end());
  }
  for (std::size_t split = 1; split < dx.size(); ++split) {
    EXPECT_EQ(dx[split], dx[0]);
    EXPECT_EQ(parameters[split], parameters[0]);
  }
}

TYPED_TEST(BatchNormPeers, OrderOfRanksDoesNotMatter) {
  MPI_Comm reversed = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, 0, -world_rank(), &reversed);
  auto layer_case = make_case<TypeParam>({.seed = 712, .channels = 3, .spatial = {5}},
                                         inputs::split(inputs::Split::uneven, 21, world_size()));
  {
    BatchNorm layer = make_layer(layer_case, Communicator(reversed));
    const auto step = run_step(layer, layer_case);
    expect_matches_oracle(layer_case, layer, step);
  }
  MPI_Comm_free(&reversed);
}

// A float cannot count beyond 2^24.
TEST(BatchNormPeers, CountsBeyondTheIntegersOfAFloat) {
  constexpr Index positions = (Index{1} << 24) + 3;
  const bool has_many = world_rank() == world_size() - 1;
  std::vector<float> x(has_many ? static_cast<std::size_t>(positions) : 1);
  for (std::size_t s = 0; s < x.size(); ++s) x[s] = has_many ? static_cast<float>(s % 2) : 1.0F;
  BatchNormOptions options;
  options.num_features = 1;
  BatchNorm layer(options, Communicator(MPI_COMM_WORLD));
  const auto view = channels_first(x.data(), {1, 1, static_cast<Index>(x.size())});
  const BatchNormCache cache = layer.forward_train(view, view);

  const Index count = positions + world_size() - 1;
  const Index ones = positions / 2 + world_size() - 1;
  const Real p = static_cast<Real>(ones) / static_cast<Real>(count);
  EXPECT_EQ(cache.count, count);
  // Sums of 0, 1 and -1 are exact; the merges and divisions round a few times each.
  const Real bound = 4 * static_cast<Real>(world_size() + 1) * tolerance::kUnit<double>;
  EXPECT_LE(std::abs(Real{cache.mean[0]} - p), bound);
  EXPECT_LE(std::abs(Real{cache.var[0]} - p * (1 - p)), 2 * bound);
}

}  // namespace
}  // namespace syncbn::testing
