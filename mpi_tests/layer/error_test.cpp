// SPDX-License-Identifier: MIT
// A wrong argument on one rank: the same error on all ranks, nothing written, and the layer works afterwards.
#include <functional>

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/layer_case.hpp"

namespace syncbn::testing {
namespace {

/// The arguments of a step on this rank; a fault spoils them on one rank.
struct Arguments {
  ConstTensorView x;
  TensorView y;
  BatchNormCache cache;
  ConstTensorView dy;
  TensorView dx;
};

struct Fault {
  const char* name;
  ErrorCode code;
  std::vector<std::string> fragments;
  std::function<void(Arguments&)> spoil;
};

LayerCase<float> small_case(std::uint64_t seed) {
  auto layer_case =
      make_case<float>({.seed = seed, .channels = 6, .spatial = {4}, .offset = 1}, std::vector<Index>(world_size(), 5));
  layer_case.options.name = "conv1.bn";
  return layer_case;
}

TensorShape shape_of(std::initializer_list<Index> extents, Layout layout = Layout::channels_first) {
  return TensorShape::from_extents(extents.begin(), extents.size(), layout);
}

const std::vector<Fault>& forward_faults() {
  static const std::vector<Fault> faults = {
      {"x and y of 5 channels",
       ErrorCode::shape,
       {"x has 5 channels", "num_features is 6"},
       [](Arguments& a) {
         a.x.shape = a.y.shape = shape_of({5, 5, 4});
       }},
      {"x of another type", ErrorCode::shape, {"x is f64", "f32"}, [](Arguments& a) { a.x.type = DataType::f64; }},
      {"y of another type", ErrorCode::shape, {"y is f64", "f32"}, [](Arguments& a) { a.y.type = DataType::f64; }},
      {"null x", ErrorCode::shape, {"x has 120 elements", "null"}, [](Arguments& a) { a.x.data = nullptr; }},
      {"null y", ErrorCode::shape, {"y has 120 elements", "null"}, [](Arguments& a) { a.y.data = nullptr; }},
      {"no y", ErrorCode::shape, {"y", "(N 5, C 6, S 4)"}, [](Arguments& a) { a.y = TensorView(); }},
      {"y of 4 samples",
       ErrorCode::shape,
       {"y is f32 (N 4, C 6, S 4)", "x is f32 (N 5, C 6, S 4)"},
       [](Arguments& a) {
         a.y.shape = shape_of({4, 6, 4});
       }},
      {"y of the other layout",
       ErrorCode::shape,
       {"y is f32 (N 5, S 4, C 6)", "x is f32 (N 5, C 6, S 4)"},
       [](Arguments& a) {
         a.y.shape = shape_of({5, 4, 6}, Layout::channels_last);
       }},
      {"negative extent",
       ErrorCode::shape,
       {"x has a negative extent"},
       [](Arguments& a) {
         a.x.shape = shape_of({5, 6, -4});
       }},
      {"one dimension",
       ErrorCode::shape,
       {"x has less than 2 dimensions"},
       [](Arguments& a) { a.x.shape = shape_of({30}); }},
      {"more than memory",
       ErrorCode::shape,
       {"x has more elements than can be addressed"},
       [](Arguments& a) {
         a.x.shape = shape_of({Index{1} << 40, 6, Index{1} << 40});
       }},
      {"y overlaps x",
       ErrorCode::shape,
       {"y overlaps x"},
       [](Arguments& a) { a.y.data = const_cast<float*>(static_cast<const float*>(a.x.data)) + 1; }},
  };
  return faults;
}

const std::vector<Fault>& backward_faults() {
  static const std::vector<Fault> faults = {
      {"dy of 4 samples",
       ErrorCode::shape,
       {"dy is f32 (N 4, C 6, S 4)", "x is f32 (N 5, C 6, S 4)"},
       [](Arguments& a) {
         a.dy.shape = shape_of({4, 6, 4});
       }},
      {"dy of another type", ErrorCode::shape, {"dy is f64", "f32"}, [](Arguments& a) { a.dy.type = DataType::f64; }},
      {"null dy", ErrorCode::shape, {"dy has 120 elements", "null"}, [](Arguments& a) { a.dy.data = nullptr; }},
      {"no dy", ErrorCode::shape, {"dy", "(N 5, C 6, S 4)"}, [](Arguments& a) { a.dy = ConstTensorView(); }},
      {"dx of another shape",
       ErrorCode::shape,
       {"dx is f32 (N 5, C 6, S 3)", "dy is f32 (N 5, C 6, S 4)"},
       [](Arguments& a) {
         a.dx.shape = shape_of({5, 6, 3});
       }},
      {"null dx", ErrorCode::shape, {"dx has 120 elements", "null"}, [](Arguments& a) { a.dx.data = nullptr; }},
      {"empty cache", ErrorCode::state, {"cache is empty"}, [](Arguments& a) { a.cache = BatchNormCache(); }},
      {"overwritten x", ErrorCode::state, {"x was overwritten"}, [](Arguments& a) { a.cache.x_overwritten = true; }},
      {"cache of another layer",
       ErrorCode::state,
       {"another number of channels"},
       [](Arguments& a) { a.cache.mean.resize(2); }},
  };
  return faults;
}

/// The first and the last rank, and one between.
std::vector<int> culprits() {
  std::vector<int> ranks = {0};
  if (world_size() > 2) ranks.push_back(world_size() / 2);
  if (world_size() > 1) ranks.push_back(world_size() - 1);
  return ranks;
}

constexpr float kUntouched = 12345.0F;

TEST(BatchNormError, InForwardOnOneRankReachesAllAndWritesNothing) {
  for (const Fault& fault : forward_faults()) {
    for (const int culprit : culprits()) {
      auto layer_case = small_case(401);
      BatchNorm layer = make_layer(layer_case);
      SCOPED_TRACE(layer_case.trace() + ", " + fault.name + " on rank " + std::to_string(culprit));
      const std::vector<float> x = layer_case.my_x().values;
      Tensor<float> y = zeros_like<float>(layer_case.my_x());
      std::fill(y.values.begin(), y.values.end(), kUntouched);
      Arguments arguments{std::as_const(layer_case.my_x()).view(), y.view(), {}, {}, {}};
      if (world_rank() == culprit) fault.spoil(arguments);

      BatchNormCache cache;
      const Caught caught = error_of([&] { layer.forward_train(arguments.x, arguments.y, cache); });
      std::vector<std::string> fragments = fault.fragments;
      fragments.insert(fragments.end(), {"[BatchNorm 'conv1.bn' forward]", of_rank(culprit)});
      expect_same_error_everywhere(caught, fault.code, fragments);
      EXPECT_EQ(y.values, std::vector<float>(y.values.size(), kUntouched));
      EXPECT_TRUE(same_bits(x, layer_case.my_x().values));
      EXPECT_EQ(cache.mode, BatchNormCache::Mode::none);
      EXPECT_EQ(layer.num_batches_tracked(), 0);
      EXPECT_EQ(values_of(layer.running_mean()), std::vector<double>(6, 0.0));
      EXPECT_EQ(values_of(layer.running_var()), std::vector<double>(6, 1.0));

      const auto step = run_step(layer, layer_case);
      expect_matches_oracle(layer_case, layer, step);
    }
  }
}

TEST(BatchNormError, InBackwardOnOneRankReachesAllAndWritesNothing) {
  for (const Fault& fault : backward_faults()) {
    for (const int culprit : culprits()) {
      auto layer_case = small_case(402);
      BatchNorm layer = make_layer(layer_case);
      SCOPED_TRACE(layer_case.trace() + ", " + fault.name + " on rank " + std::to_string(culprit));
      Tensor<float> y = zeros_like<float>(layer_case.my_x());
      Tensor<float> dx = zeros_like<float>(layer_case.my_x());
      std::fill(dx.values.begin(), dx.values.end(), kUntouched);
      const BatchNormCache cache = layer.forward_train(std::as_const(layer_case.my_x()).view(), y.view());
      Arguments arguments{{}, {}, cache, std::as_const(layer_case.my_dy()).view(), dx.view()};
      if (world_rank() == culprit) fault.spoil(arguments);

      BatchNormGradients gradients;
      const Caught caught = error_of([&] { layer.backward(arguments.cache, arguments.dy, arguments.dx, gradients); });
      std::vector<std::string> fragments = fault.fragments;
      fragments.insert(fragments.end(), {"[BatchNorm 'conv1.bn' backward]", of_rank(culprit)});
      expect_same_error_everywhere(caught, fault.code, fragments);
      EXPECT_EQ(dx.values, std::vector<float>(dx.values.size(), kUntouched));
      EXPECT_EQ(gradients.dgamma.size(), 0);

      StepResult<float> step{y, dx, cache, {}};
      step.gradients = layer.backward(cache, std::as_const(layer_case.my_dy()).view(), step.dx.view());
      expect_matches_oracle(layer_case, layer, step);
    }
  }
}

TEST(BatchNormError, OnSeveralRanksIsThatOfTheLowest) {
  if (world_size() < 3) GTEST_SKIP() << "needs 3 ranks";
  auto layer_case = small_case(403);
  BatchNorm layer = make_layer(layer_case);
  Tensor<float> y = zeros_like<float>(layer_case.my_x());
  Arguments arguments{std::as_const(layer_case.my_x()).view(), y.view(), {}, {}, {}};
  if (world_rank() == 1) arguments.x.data = nullptr;
  if (world_rank() == 2) arguments.y = TensorView();
  const Caught caught = error_of([&] { layer.forward_train(arguments.x, arguments.y); });
  expect_same_error_everywhere(caught, ErrorCode::shape, {"x has 120 elements", of_rank(1)});
}

TEST(BatchNormError, OfACallOutOfStepNamesBothRanksAndPasses) {
  if (world_size() == 1) GTEST_SKIP() << "needs 2 ranks";
  auto layer_case = small_case(404);
  BatchNorm layer = make_layer(layer_case);
  auto step = run_step(layer, layer_case);
  const int odd_one = world_size() - 1;
  const Caught caught = error_of([&] {
    if (world_rank() == odd_one) {
      layer.backward(step.cache, std::as_const(layer_case.my_dy()).view(), step.dx.view());
    } else {
      layer.forward_train(std::as_const(layer_case.my_x()).view(), step.y.view());
    }
  });
  expect_same_error_everywhere(
      caught, ErrorCode::mismatch,
      {"'conv1.bn' forward", "'conv1.bn' backward", "rank 0", "rank " + std::to_string(odd_one)});
}

/// forward_train and backward with tensors of T on this rank: zeros are enough for what is checked here.
template <class T>
Caught error_of_step(BatchNorm& layer, Index samples) {
  Tensor<T> x(samples, 6, {4}, Layout::channels_first);
  Tensor<T> y = x;
  BatchNormCache cache;
  const Caught caught = error_of([&] { layer.forward_train(std::as_const(x).view(), y.view(), cache); });
  if (caught.code != ErrorCode::none) return caught;
  return error_of([&] { layer.backward(cache, std::as_const(x).view(), y.view()); });
}

TEST(BatchNormError, OfTensorsThatDifferInTypeNamesTypesAndRanks) {
  if (world_size() == 1) GTEST_SKIP() << "needs 2 ranks";
  auto layer_case = small_case(406);
  for (const Reduction reduction : {Reduction::reproducible, Reduction::fast}) {
    layer_case.options.reduction = reduction;
    BatchNorm layer = make_layer(layer_case);
    for (const int culprit : culprits()) {
      const bool is_odd = world_rank() == culprit;
      const std::string others = " on rank " + std::to_string(culprit == 0 ? 1 : 0);
      const std::string odd = " on rank " + std::to_string(culprit);
      expect_same_error_everywhere(is_odd ? error_of_step<bfloat16>(layer, 5) : error_of_step<float>(layer, 5),
                                   ErrorCode::mismatch, {"'conv1.bn' forward", "f32" + others, "bf16" + odd});
      expect_same_error_everywhere(is_odd ? error_of_step<bfloat16>(layer, 5) : error_of_step<float16>(layer, 5),
                                   ErrorCode::mismatch, {"'conv1.bn' forward", "f16" + others, "bf16" + odd});
      expect_same_error_everywhere(is_odd ? error_of_step<double>(layer, 5) : error_of_step<float16>(layer, 5),
                                   ErrorCode::shape, {"x is f64", "f32, bf16 and f16", of_rank(culprit)});
      EXPECT_EQ(layer.num_batches_tracked(), 0);
    }
  }
}

TEST(BatchNormError, ATensorWithoutElementsIsOfAnyType) {
  auto layer_case = small_case(407);
  BatchNorm layer = make_layer(layer_case);
  const bool is_empty = world_rank() == 0 && world_size() > 1;
  const Caught caught = is_empty ? error_of_step<float>(layer, 0) : error_of_step<bfloat16>(layer, 5);
  EXPECT_EQ(caught.code, ErrorCode::none) << caught.text;
  EXPECT_EQ(layer.num_batches_tracked(), 1);
}

TEST(BatchNormError, InEvalIsThisRanksAlone) {
  auto layer_case = small_case(405);
  BatchNorm layer = make_layer(layer_case);
  Tensor<float> y(4, 6, {4}, Layout::channels_first);
  if (world_rank() == world_size() - 1) {
    const Caught caught = error_of([&] { layer.forward_eval(layer_case.my_x().view(), y.view()); });
    EXPECT_EQ(caught.code, ErrorCode::shape);
    EXPECT_NE(caught.text.find("[BatchNorm 'conv1.bn' eval forward]"), std::string::npos) << caught.text;
  }
}

}  // namespace
}  // namespace syncbn::testing
