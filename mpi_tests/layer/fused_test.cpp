// SPDX-License-Identifier: MIT
// Activation and residual in the element pass: the bits of the steps done one by one, where those round once, too.
#include <cmath>

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/layer_case.hpp"

namespace syncbn::testing {
namespace {

template <class T>
class BatchNormFused : public ::testing::Test {};
using ElementTypes = ::testing::Types<float, double, bfloat16, float16>;
TYPED_TEST_SUITE(BatchNormFused, ElementTypes);

struct Variant {
  std::vector<Index> spatial;
  Layout layout;
  Reduction reduction;
};
const Variant kVariants[] = {{{}, Layout::channels_first, Reduction::reproducible},
                             {{3, 3}, Layout::channels_first, Reduction::reproducible},
                             {{7, 5}, Layout::channels_last, Reduction::reproducible},
                             {{}, Layout::channels_first, Reduction::fast},
                             {{4, 5}, Layout::channels_last, Reduction::fast}};

template <class T>
LayerCase<T> fused_case(std::uint64_t seed, const Variant& variant, int threads = 1) {
  auto layer_case =
      make_case<T>({.seed = seed, .channels = 21, .spatial = variant.spatial, .layout = variant.layout, .offset = 1},
                   inputs::split(inputs::Split::uneven, 13, world_size()));
  layer_case.options.reduction = variant.reduction;
  layer_case.options.threads = threads;
  return layer_case;
}

template <class T>
Tensor<T> relu_of(Tensor<T> tensor) {
  for (T& value : tensor.values) value = static_cast<double>(value) < 0.0 ? T(0) : value;
  return tensor;
}

/// dy where y > 0.
template <class T>
Tensor<T> masked(Tensor<T> dy, const Tensor<T>& y) {
  for (std::size_t i = 0; i < dy.values.size(); ++i) {
    if (static_cast<double>(y.values[i]) <= 0.0) dy.values[i] = T(0);
  }
  return dy;
}

/// dx, dgamma and dbeta of a backward pass of `layer` are those of the plain layer for the masked gradient.
template <class T>
void expect_gradients_of_masked(BatchNorm& plain, const BatchNormCache& cache, const Tensor<T>& masked_dy,
                                const Tensor<T>& dx, const BatchNormGradients& gradients) {
  Tensor<T> wanted = zeros_like<T>(masked_dy);
  const BatchNormGradients wanted_gradients = plain.backward(cache, masked_dy.view(), wanted.view());
  EXPECT_TRUE(same_bits(dx.values, wanted.values));
  EXPECT_TRUE(same_bits(values_of(gradients.dgamma), values_of(wanted_gradients.dgamma)));
  EXPECT_TRUE(same_bits(values_of(gradients.dbeta), values_of(wanted_gradients.dbeta)));
}

TYPED_TEST(BatchNormFused, ReluGivesTheBitsOfASeparateRelu) {
  for (const Variant& variant : kVariants) {
    for (const int threads : {1, 3}) {
      auto layer_case = fused_case<TypeParam>(401, variant, threads);
      BatchNorm plain = make_layer(layer_case);
      layer_case.options.activation = Activation::relu;
      BatchNorm fused = make_layer(layer_case);
      SCOPED_TRACE(layer_case.trace());
      const Tensor<TypeParam>& x = std::as_const(layer_case).x[static_cast<std::size_t>(world_rank())];
      const Tensor<TypeParam> dy = layer_case.my_dy();
      const auto steps = run_step(plain, layer_case);

      Tensor<TypeParam> y = zeros_like<TypeParam>(x);
      const BatchNormCache cache = fused.forward_train(x.view(), y.view());
      EXPECT_TRUE(same_bits(y.values, relu_of(steps.y).values));
      EXPECT_TRUE(same_bits(values_of(fused.running_var()), values_of(plain.running_var())));

      const Tensor<TypeParam> wanted_dy = masked(dy, y);
      Tensor<TypeParam> dx = zeros_like<TypeParam>(x);
      Tensor<TypeParam> dresidual = zeros_like<TypeParam>(x);
      BatchNormGradients gradients = fused.backward(cache, dy.view(), dx.view(), dresidual.view());
      expect_gradients_of_masked(plain, steps.cache, wanted_dy, dx, gradients);
      EXPECT_TRUE(same_bits(dresidual.values, wanted_dy.values));

      Tensor<TypeParam> alone = zeros_like<TypeParam>(x);  // dx takes the masked gradient on the way
      gradients = fused.backward(cache, dy.view(), alone.view());
      EXPECT_TRUE(same_bits(alone.values, dx.values));
      Tensor<TypeParam> in_place = dy;
      fused.backward_input(cache, std::as_const(in_place).view(), in_place.view());
      EXPECT_TRUE(same_bits(in_place.values, dx.values));
      const BatchNormGradients no_dx = fused.backward(cache, dy.view(), TensorView());
      EXPECT_TRUE(same_bits(values_of(no_dx.dgamma), values_of(gradients.dgamma)));
    }
  }
}

TYPED_TEST(BatchNormFused, ResidualIsAddedBeforeTheActivation) {
  for (const Variant& variant : kVariants) {
    for (const Activation activation : {Activation::none, Activation::relu}) {
      auto layer_case = fused_case<TypeParam>(402, variant, 2);
      BatchNorm plain = make_layer(layer_case);
      layer_case.options.activation = activation;
      BatchNorm fused = make_layer(layer_case);
      SCOPED_TRACE(layer_case.trace());
      const bool has_relu = activation == Activation::relu;
      const Tensor<TypeParam>& x = std::as_const(layer_case).x[static_cast<std::size_t>(world_rank())];
      const Tensor<TypeParam> dy = layer_case.my_dy();
      const Tensor<TypeParam> z = fused_case<TypeParam>(403, variant).my_x();
      const auto steps = run_step(plain, layer_case);

      Tensor<TypeParam> y = zeros_like<TypeParam>(x);
      const BatchNormCache cache = fused.forward_train(x.view(), y.view(), z.view());
      for (std::size_t i = 0; i < y.values.size(); ++i) {
        // The plain y is rounded once, their sum once more: two roundings of at most half an ulp of the largest term.
        const Real sum = static_cast<Real>(steps.y.values[i]) + static_cast<Real>(z.values[i]);
        const Real wanted = has_relu && sum < 0 ? 0 : sum;
        const Real terms = std::abs(static_cast<Real>(steps.y.values[i])) + std::abs(static_cast<Real>(z.values[i]));
        ASSERT_LE(std::abs(static_cast<Real>(y.values[i]) - wanted), 2 * tolerance::rounding<TypeParam>(terms));
      }

      const Tensor<TypeParam> wanted_dy = has_relu ? masked(dy, y) : dy;
      Tensor<TypeParam> dx = zeros_like<TypeParam>(x);
      Tensor<TypeParam> dresidual = zeros_like<TypeParam>(x);
      const BatchNormGradients gradients = fused.backward(cache, dy.view(), dx.view(), dresidual.view());
      expect_gradients_of_masked(plain, steps.cache, wanted_dy, dx, gradients);
      EXPECT_TRUE(same_bits(dresidual.values, wanted_dy.values));

      Tensor<TypeParam> sum_in_place = z;  // y over the residual
      fused.forward_train(x.view(), sum_in_place.view(), std::as_const(sum_in_place).view());
      EXPECT_TRUE(same_bits(sum_in_place.values, y.values));
    }
  }
}

TYPED_TEST(BatchNormFused, EvalAndFrozen) {
  for (const Variant& variant : kVariants) {
    auto layer_case = fused_case<TypeParam>(404, variant);
    BatchNorm plain = make_layer(layer_case);
    layer_case.options.activation = Activation::relu;
    BatchNorm fused = make_layer(layer_case);
    SCOPED_TRACE(layer_case.trace());
    const Tensor<TypeParam>& x = std::as_const(layer_case).x[static_cast<std::size_t>(world_rank())];
    const Tensor<TypeParam> dy = layer_case.my_dy();
    Tensor<TypeParam> plain_y = zeros_like<TypeParam>(x);
    Tensor<TypeParam> y = zeros_like<TypeParam>(x);
    plain.forward_eval(x.view(), plain_y.view());
    fused.forward_eval(x.view(), y.view());
    EXPECT_TRUE(same_bits(y.values, relu_of(plain_y).values));

    const BatchNormCache plain_cache = plain.forward_frozen(x.view(), plain_y.view());
    const BatchNormCache cache = fused.forward_frozen(x.view(), y.view());
    Tensor<TypeParam> dx = zeros_like<TypeParam>(x);
    const BatchNormGradients gradients = fused.backward(cache, dy.view(), dx.view());
    expect_gradients_of_masked(plain, plain_cache, masked(dy, y), dx, gradients);
    Tensor<TypeParam> in_place = dy;
    fused.backward_input(cache, std::as_const(in_place).view(), in_place.view());
    EXPECT_TRUE(same_bits(in_place.values, dx.values));
  }
}

TYPED_TEST(BatchNormFused, WhatCannotBeIsTheSameErrorEverywhere) {
  auto layer_case = fused_case<TypeParam>(405, kVariants[1]);
  layer_case.options.activation = Activation::relu;
  BatchNorm layer = make_layer(layer_case);
  Tensor<TypeParam> x = layer_case.my_x();
  const Tensor<TypeParam> dy = layer_case.my_dy();
  Tensor<TypeParam> y = zeros_like<TypeParam>(x);
  Tensor<TypeParam> other(x.shape.samples, 20, {3, 3}, Layout::channels_first);
  const auto expect_error = [&](const char* words, auto&& call) {
    const Caught caught = error_of(call);
    EXPECT_EQ(caught.code, ErrorCode::shape) << caught.text;
    EXPECT_NE(caught.text.find(words), std::string::npos) << caught.text;
    EXPECT_TRUE(is_same_on_all_ranks(caught.text)) << caught.text;
  };
  expect_error("residual has 20 channels",
               [&] { layer.forward_train(std::as_const(x).view(), y.view(), std::as_const(other).view()); });
  const BatchNormCache cache = layer.forward_train(std::as_const(x).view(), y.view());
  expect_error("dresidual has 20 channels", [&] { layer.backward(cache, dy.view(), TensorView(), other.view()); });
  expect_error("dx is x", [&] { layer.backward(cache, dy.view(), x.view()); });
  expect_error("dresidual is x", [&] { layer.backward(cache, dy.view(), TensorView(), x.view()); });
  expect_error("dresidual is dx", [&] { layer.backward(cache, dy.view(), y.view(), y.view()); });
  EXPECT_TRUE(same_bits(x.values, layer_case.my_x().values)) << "nothing is written";
}

}  // namespace
}  // namespace syncbn::testing
