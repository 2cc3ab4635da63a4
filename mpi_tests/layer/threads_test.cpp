// SPDX-License-Identifier: MIT
// Threads share out samples or channels: the same bits, and the same word about what is not finite, for any number.
#include <limits>

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/layer_case.hpp"

namespace syncbn::testing {
namespace {

struct Variant {
  Index samples_per_rank, channels;
  std::vector<Index> spatial;
  Layout layout;
};
/// Large enough for four threads; the comment says what they share out.
const Variant kVariants[] = {
    {1, 37, {31, 33}, Layout::channels_first},  // channels
    {1, 70, {29, 23}, Layout::channels_last},   // channels, in strips
    {1, 70000, {}, Layout::channels_first},     // channels, in strips
    {40, 1037, {}, Layout::channels_first},     // channels, in strips
    {300, 130, {}, Layout::channels_first},     // samples
    {9, 37, {31, 5}, Layout::channels_first},   // samples
    {3, 7, {90, 90}, Layout::channels_last},    // samples, or too few channels to share out
};

template <class T>
LayerCase<T> threads_case(const Variant& variant, int threads) {
  auto layer_case = make_case<T>(
      {.seed = 601, .channels = variant.channels, .spatial = variant.spatial, .layout = variant.layout, .offset = 2},
      std::vector<Index>(static_cast<std::size_t>(world_size()), variant.samples_per_rank));
  layer_case.options.threads = threads;
  return layer_case;
}

template <class T>
class BatchNormThreads : public ::testing::Test {};
using ElementTypes = ::testing::Types<float, double>;
TYPED_TEST_SUITE(BatchNormThreads, ElementTypes);

TYPED_TEST(BatchNormThreads, TheSameBitsForAnyNumber) {
  for (const Variant& variant : kVariants) {
    for (const Activation activation : {Activation::none, Activation::relu}) {
      auto wanted_case = threads_case<TypeParam>(variant, 1);
      wanted_case.options.activation = activation;
      BatchNorm alone = make_layer(wanted_case);
      const auto wanted = run_step(alone, wanted_case);
      for (const int threads : {2, 3, 4}) {
        auto layer_case = threads_case<TypeParam>(variant, threads);
        layer_case.options.activation = activation;
        BatchNorm layer = make_layer(layer_case);
        const auto got = run_step(layer, layer_case);
        SCOPED_TRACE(layer_case.trace() + ", threads " + std::to_string(threads));
        EXPECT_TRUE(same_bits(got.y.values, wanted.y.values));
        EXPECT_TRUE(same_bits(got.dx.values, wanted.dx.values));
        EXPECT_TRUE(same_bits(got.cache.var, wanted.cache.var));
        EXPECT_TRUE(same_bits(values_of(got.gradients.dgamma), values_of(wanted.gradients.dgamma)));
        EXPECT_TRUE(same_bits(values_of(got.gradients.dbeta), values_of(wanted.gradients.dbeta)));
        EXPECT_TRUE(same_bits(values_of(layer.running_var()), values_of(alone.running_var())));
      }
    }
  }
}

TYPED_TEST(BatchNormThreads, TheFirstChannelThatIsNotFiniteIsNamed) {
  for (const Variant& variant : kVariants) {
    for (const int threads : {1, 2, 4}) {
      auto layer_case = threads_case<TypeParam>(variant, threads);
      layer_case.options.non_finite = NonFinitePolicy::error;
      BatchNorm layer = make_layer(layer_case);
      const Index last = variant.channels - 1;
      const Index first = variant.channels / 2;
      Tensor<TypeParam>& x = layer_case.my_x();
      if (world_rank() == world_size() - 1) {
        x.at(0, last, 0) = std::numeric_limits<TypeParam>::infinity();
        x.at(variant.samples_per_rank - 1, first, 0) = std::numeric_limits<TypeParam>::quiet_NaN();
      }
      Tensor<TypeParam> y = zeros_like<TypeParam>(x);
      const Caught caught = error_of([&] { layer.forward_train(std::as_const(x).view(), y.view()); });
      EXPECT_EQ(caught.code, ErrorCode::non_finite) << caught.text;
      const std::string wanted = "channel " + std::to_string(first) + " (rank " + std::to_string(world_size() - 1);
      EXPECT_NE(caught.text.find(wanted), std::string::npos) << caught.text << ", wanted " << wanted;
      EXPECT_TRUE(is_same_on_all_ranks(caught.text)) << caught.text;
    }
  }
}

}  // namespace
}  // namespace syncbn::testing
