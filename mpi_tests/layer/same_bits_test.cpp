// SPDX-License-Identifier: MIT
// Reduction::reproducible: the bits of the full batch in one process, whatever the split, the order of samples and
// ranks and the number of threads. Prints a hash of all results: same_bits_test.sh compares it between numbers of ranks
// and instruction sets.
#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>

#include <gtest/gtest.h>

#include "layer/layer_case.hpp"

namespace syncbn::testing {
namespace {

constexpr Index kSamples = 21;

/// FNV-1a over everything that the one process computed.
std::uint64_t hash_of_results = 0xcbf29ce484222325u;

template <class T>
void add_to_hash(const std::vector<T>& values) {
  for (const T value : values) {
    unsigned char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof value);
    for (const unsigned char byte : bytes) hash_of_results = (hash_of_results ^ byte) * 0x100000001b3u;
  }
}

/// What a batch may look like; each breaks another way of summing.
enum class Numbers { plain, large_mean, wide_range, constant, tiny };
constexpr Numbers kNumbers[] = {Numbers::plain, Numbers::large_mean, Numbers::wide_range, Numbers::constant,
                                Numbers::tiny};

template <class T>
void spoil(Numbers numbers, Batch<T>& x) {
  Index counter = 0;
  for (Tensor<T>& part : x) {
    for (T& value : part.values) {
      ++counter;
      switch (numbers) {
        case Numbers::plain:
          break;
        case Numbers::large_mean:
          value += T(3e6);
          break;
        case Numbers::wide_range:  // 2^-60 .. 2^60: no window of bins holds them all
          value = std::ldexp(value, static_cast<int>(counter * 37 % 121) - 60);
          break;
        case Numbers::constant:
          value = T(0.1);
          break;
        case Numbers::tiny:
          value *= std::numeric_limits<T>::min();
          break;
      }
    }
  }
}

/// What is known of one sample or of all, as bits.
template <class T>
struct Results {
  std::vector<std::vector<T>> y, dx;  ///< By sample of the global batch; empty if it is not on this rank.
  std::vector<double> channels;       ///< mean, var, invstd, dgamma, dbeta, running_mean, running_var.
};

/// One step of the samples `mine` (numbers of the global batch `x`), in this order.
template <class T>
Results<T> run(const LayerCase<T>& layer_case, const Tensor<T>& x, const Tensor<T>& dy, const std::vector<Index>& mine,
               const Communicator& group, int threads) {
  LayerCase<T> with_threads = layer_case;
  with_threads.options.threads = threads;
  BatchNorm layer = make_layer(with_threads, group);
  const std::size_t stride = x.shape.samples == 0 ? 0 : x.values.size() / static_cast<std::size_t>(x.shape.samples);
  std::vector<Index> extents = x.extents;
  extents[0] = static_cast<Index>(mine.size());
  const auto take = [&](const Tensor<T>& all) {
    Tensor<T> part;
    part.extents = extents;
    part.shape = TensorShape::from_extents(extents.data(), extents.size(), all.shape.layout);
    for (const Index n : mine) {
      const auto begin = all.values.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(n) * stride);
      part.values.insert(part.values.end(), begin, begin + static_cast<std::ptrdiff_t>(stride));
    }
    return part;
  };
  const StepResult<T> step = run_step(layer, take(x), take(dy));

  Results<T> results;
  results.y.resize(static_cast<std::size_t>(x.shape.samples));
  results.dx.resize(results.y.size());
  for (std::size_t i = 0; i < mine.size(); ++i) {
    const auto first = static_cast<std::ptrdiff_t>(i * stride);
    const auto last = static_cast<std::ptrdiff_t>((i + 1) * stride);
    const auto n = static_cast<std::size_t>(mine[i]);
    results.y[n].assign(step.y.values.begin() + first, step.y.values.begin() + last);
    results.dx[n].assign(step.dx.values.begin() + first, step.dx.values.begin() + last);
  }
  for (const auto& values :
       {step.cache.mean, step.cache.mean_lo, step.cache.var, step.cache.invstd, values_of(step.gradients.dgamma),
        values_of(step.gradients.dbeta), values_of(layer.running_mean()), values_of(layer.running_var())}) {
    results.channels.insert(results.channels.end(), values.begin(), values.end());
  }
  return results;
}

template <class T>
void expect_same_bits(const Results<T>& got, const Results<T>& want, const std::vector<Index>& mine) {
  EXPECT_TRUE(same_bits(got.channels, want.channels)) << "statistics or parameter gradients";
  for (const Index n : mine) {
    const auto i = static_cast<std::size_t>(n);
    EXPECT_TRUE(same_bits(got.y[i], want.y[i])) << "y of sample " << n;
    EXPECT_TRUE(same_bits(got.dx[i], want.dx[i])) << "dx of sample " << n;
  }
}

/// A permutation of 0 .. count-1 that belongs to the seed.
std::vector<Index> shuffled(Index count, std::uint64_t seed) {
  std::vector<Index> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), Index{0});
  std::sort(order.begin(), order.end(), [seed](Index a, Index b) {
    return inputs::uniform(seed, static_cast<std::uint64_t>(a)) < inputs::uniform(seed, static_cast<std::uint64_t>(b));
  });
  return order;
}

/// The samples that lie on this rank when `order` is dealt out as `counts` says.
std::vector<Index> dealt(const std::vector<Index>& order, const std::vector<Index>& counts, int rank) {
  const auto first = std::accumulate(counts.begin(), counts.begin() + rank, Index{0});
  return {order.begin() + first, order.begin() + first + counts[static_cast<std::size_t>(rank)]};
}

template <class T>
class BatchNormSameBits : public ::testing::Test {};
using ElementTypes = ::testing::Types<float, double>;
TYPED_TEST_SUITE(BatchNormSameBits, ElementTypes);

/// Every split, with shuffled samples, ranks in both orders and 1 to 3 threads, against one process.
template <class T>
void expect_same_bits_for_every_split(const LayerCase<T>& layer_case) {
  std::vector<Index> everything(kSamples);
  std::iota(everything.begin(), everything.end(), Index{0});
  const Tensor<T>& x = layer_case.x.front();
  const Tensor<T>& dy = layer_case.dy.front();
  const Results<T> whole = run(layer_case, x, dy, everything, Communicator(), 1);
  add_to_hash(whole.channels);
  for (const auto& sample : whole.y) add_to_hash(sample);
  for (const auto& sample : whole.dx) add_to_hash(sample);

  const auto again = run(layer_case, x, dy, shuffled(kSamples, 5), Communicator(), 3);
  expect_same_bits(again, whole, everything);
  MPI_Comm reversed = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, 0, -world_rank(), &reversed);
  {
    const Communicator groups[] = {Communicator(MPI_COMM_WORLD), Communicator(reversed)};
    std::uint64_t seed = 0;
    for (const inputs::Split kind : inputs::kSplits) {
      for (const Communicator& group : groups) {
        SCOPED_TRACE(std::string(inputs::name_of(kind)) + ", shuffle " + std::to_string(++seed));
        const auto counts = inputs::split(kind, kSamples, world_size(), seed);
        const auto mine = dealt(shuffled(kSamples, seed), counts, world_rank());
        const int threads = 1 + world_rank() % 3;
        expect_same_bits(run(layer_case, x, dy, mine, group, threads), whole, mine);
      }
    }
  }
  MPI_Comm_free(&reversed);
}

TYPED_TEST(BatchNormSameBits, ForEverySplitOrderAndThreadCount) {
  const std::vector<std::vector<Index>> shapes = {{}, {3}, {5, 7}, {16}};
  std::uint64_t seed = 900;
  for (const auto& spatial : shapes) {
    for (const Layout layout : {Layout::channels_first, Layout::channels_last}) {
      for (const Numbers numbers : kNumbers) {
        const inputs::Recipe recipe{.seed = ++seed, .channels = 5, .spatial = spatial, .layout = layout, .offset = 1};
        auto layer_case = make_case<TypeParam>(recipe, {kSamples});
        spoil(numbers, layer_case.x);
        SCOPED_TRACE(layer_case.trace() + ", numbers " + std::to_string(static_cast<int>(numbers)));
        expect_same_bits_for_every_split(layer_case);
      }
    }
  }
}

// Sums that cancel almost wholly: any rounding on the way shows in the leading digits.
TYPED_TEST(BatchNormSameBits, WhenTheGradientsCancel) {
  auto layer_case = make_case<TypeParam>({.seed = 950, .channels = 4, .spatial = {6}}, {kSamples});
  Tensor<TypeParam>& dy = layer_case.dy.front();
  for (Index n = 0; n + 1 < kSamples; n += 2) {
    for (Index c = 0; c < 4; ++c) {
      for (Index s = 0; s < 6; ++s) {
        dy.at(n, c, s) *= TypeParam(1e6);
        dy.at(n + 1, c, s) = -dy.at(n, c, s);
      }
    }
  }
  expect_same_bits_for_every_split(layer_case);
}

// The test above can see a difference: plain sums in another order give other bits somewhere.
TEST(BatchNormSameBits, FastReductionDoesNotHaveThem) {
  auto layer_case = make_case<float>({.seed = 960, .channels = 64, .spatial = {33}, .offset = 5}, {kSamples});
  layer_case.options.reduction = Reduction::fast;
  const Tensor<float>& x = layer_case.x.front();
  const Tensor<float>& dy = layer_case.dy.front();
  const auto one = run(layer_case, x, dy, shuffled(kSamples, 1), Communicator(), 1);
  const auto other = run(layer_case, x, dy, shuffled(kSamples, 2), Communicator(), 1);
  EXPECT_FALSE(same_bits(one.channels, other.channels));
}

// After all others (GoogleTest runs suites in the order of their definition): one line for the script.
TEST(BatchNormSameBitsReport, PrintsTheHash) {
  EXPECT_TRUE(is_same_on_all_ranks(&hash_of_results, sizeof hash_of_results));
  if (world_rank() == 0) std::printf("[bits] %016" PRIx64 "\n", hash_of_results);
}

}  // namespace
}  // namespace syncbn::testing
