// SPDX-License-Identifier: MIT
// NaN and infinities: they stay in their channel, to the bit; or they are the same error everywhere, with nothing
// written.
#include <cmath>
#include <cstring>
#include <limits>

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/layer_case.hpp"

namespace syncbn::testing {
namespace {

/// Results by channel, of the batch that is the same but for one channel.
template <class T>
void expect_other_channels_unchanged(const StepResult<T>& clean, const StepResult<T>& spoilt, Index spoilt_channel) {
  for (Index c = 0; c < clean.y.shape.channels; ++c) {
    const auto i = static_cast<std::size_t>(c);
    if (c == spoilt_channel) {
      EXPECT_TRUE(std::isnan(spoilt.cache.mean[i]) && std::isnan(spoilt.cache.var[i]));
      continue;
    }
    const std::vector<double> a = {clean.cache.mean[i], clean.cache.var[i], clean.gradients.dgamma[c],
                                   clean.gradients.dbeta[c]};
    const std::vector<double> b = {spoilt.cache.mean[i], spoilt.cache.var[i], spoilt.gradients.dgamma[c],
                                   spoilt.gradients.dbeta[c]};
    EXPECT_TRUE(same_bits(a, b)) << "channel " << c;
  }
  for_each_element(clean.y, [&](Index n, Index c, Index s) {
    if (c == spoilt_channel) {
      EXPECT_TRUE(is_nan(spoilt.y.at(n, c, s)) && is_nan(spoilt.dx.at(n, c, s)));
    } else {
      EXPECT_EQ(std::memcmp(&clean.y.at(n, c, s), &spoilt.y.at(n, c, s), sizeof(T)), 0);
      EXPECT_EQ(std::memcmp(&clean.dx.at(n, c, s), &spoilt.dx.at(n, c, s), sizeof(T)), 0);
    }
  });
}

template <class T>
class BatchNormNonFinite : public ::testing::Test {};
using ElementTypes = ::testing::Types<float, double, bfloat16, float16>;
TYPED_TEST_SUITE(BatchNormNonFinite, ElementTypes);

TYPED_TEST(BatchNormNonFinite, OtherChannelsKeepTheirBits) {
  using T = TypeParam;
  for (const T value :
       {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(), -std::numeric_limits<T>::infinity()}) {
    for (const std::vector<Index>& spatial : {std::vector<Index>{}, std::vector<Index>{3, 7}}) {
      for (const Layout layout : {Layout::channels_first, Layout::channels_last}) {
        // 37 channels: a spoilt one in a full strip of 16, and one in the rest.
        for (const Index channel : {Index{4}, Index{36}}) {
          auto layer_case =
              make_case<T>({.seed = 21, .channels = 37, .spatial = spatial, .layout = layout, .offset = 3},
                           inputs::split(inputs::Split::uneven, 35, world_size()));
          BatchNorm clean_layer = make_layer(layer_case);
          const auto clean = run_step(clean_layer, layer_case);
          layer_case.x.back().at(0, channel, 0) = value;
          BatchNorm layer = make_layer(layer_case);
          SCOPED_TRACE(layer_case.trace() + ", a spoilt value in channel " + std::to_string(channel));
          expect_other_channels_unchanged(clean, run_step(layer, layer_case), channel);
        }
      }
    }
  }
}

/// Places of bad values: (rank, channel), and which of them the error must name.
struct BadPlaces {
  std::vector<std::pair<int, Index>> all;
  int rank;
  Index channel;
};
std::vector<BadPlaces> bad_places() {
  const int last = world_size() - 1;
  const int middle = world_size() / 2;
  // The lowest rank, and there the lowest channel.
  return {{{{last, 7}}, last, 7}, {{{last, 2}, {middle, 9}, {middle, 5}}, middle, last == middle ? 2 : 5}};
}

/// Every byte that a failed call might have written.
template <class T>
std::vector<double> state_of(const BatchNorm& layer, const Tensor<T>& output) {
  std::vector<double> state;
  for (const T value : output.values) state.push_back(static_cast<double>(value));
  for (const auto& more : {values_of(layer.running_mean()), values_of(layer.running_var())}) {
    state.insert(state.end(), more.begin(), more.end());
  }
  state.push_back(static_cast<double>(layer.num_batches_tracked()));
  return state;
}

TYPED_TEST(BatchNormNonFinite, ErrorNamesRankAndChannelAndNothingIsWritten) {
  using T = TypeParam;
  const std::vector<Index> counts(static_cast<std::size_t>(world_size()), 3);
  for (const Reduction reduction : {Reduction::reproducible, Reduction::fast}) {
    for (const std::vector<Index>& spatial : {std::vector<Index>{}, std::vector<Index>{5}}) {
      for (const bool is_backward : {false, true}) {
        for (const BadPlaces& bad : bad_places()) {
          auto layer_case = make_case<T>({.seed = 22, .channels = 20, .spatial = spatial}, counts);
          layer_case.options.reduction = reduction;
          layer_case.options.non_finite = NonFinitePolicy::error;
          BatchNorm layer = make_layer(layer_case);
          Tensor<T> output = zeros_like<T>(layer_case.my_x());
          std::fill(output.values.begin(), output.values.end(), T(7));
          BatchNormCache cache;
          if (is_backward) {
            Tensor<T> y = output;
            layer.forward_train(layer_case.my_x().view(), y.view(), cache);
          }
          const T values[] = {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()};
          for (const auto& [rank, channel] : bad.all) {
            auto& batch = is_backward ? layer_case.dy : layer_case.x;
            batch[static_cast<std::size_t>(rank)].at(1, channel, 0) = values[channel % 2];
          }
          SCOPED_TRACE(layer_case.trace() + (reduction == Reduction::fast ? ", fast" : ", reproducible") +
                       (is_backward ? ", backward" : ", forward"));
          const std::vector<double> before = state_of(layer, output);
          const Caught caught = error_of([&] {
            if (is_backward) {
              layer.backward(cache, layer_case.my_dy().view(), output.view());
            } else {
              layer.forward_train(layer_case.my_x().view(), output.view());
            }
          });
          expect_same_error_everywhere(
              caught, ErrorCode::non_finite,
              {is_backward ? "backward" : "forward", "not finite in channel " + std::to_string(bad.channel),
               "rank " + std::to_string(bad.rank) + " of " + std::to_string(world_size())});
          EXPECT_TRUE(same_bits(state_of(layer, output), before));
        }
      }
    }
  }
}

}  // namespace
}  // namespace syncbn::testing
