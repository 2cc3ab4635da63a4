// SPDX-License-Identifier: MIT
#include "support/inputs.hpp"

#include <cmath>
#include <numeric>

namespace syncbn::testing::inputs {
namespace {

/// SplitMix64's output function: a bijection of 64 bits whose outputs pass as random for consecutive arguments.
std::uint64_t mix(std::uint64_t z) {
  z += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

std::uint64_t chain(std::uint64_t state, Index value) { return mix(state ^ mix(static_cast<std::uint64_t>(value))); }

}  // namespace

double uniform(std::uint64_t seed, std::uint64_t counter) {
  return (static_cast<double>(mix(mix(seed) ^ counter) >> 11) + 0.5) * 0x1p-53;
}

double gaussian(std::uint64_t seed, Index sample, Index channel, Index position) {
  constexpr double two_pi = 6.283185307179586;
  const std::uint64_t key = chain(chain(chain(mix(seed), sample), channel), position);
  return std::sqrt(-2 * std::log(uniform(key, 0))) * std::cos(two_pi * uniform(key, 1));  // Box-Muller
}

template <class T>
Batch<T> batch(const Recipe& recipe, const std::vector<Index>& counts, const std::vector<std::vector<Index>>& spatial) {
  Batch<T> result;
  Index first = 0;
  for (std::size_t r = 0; r < counts.size(); ++r) {
    Tensor<T> part(counts[r], recipe.channels, spatial[r], recipe.layout);
    for_each_element(part, [&](Index n, Index c, Index s) {
      part.at(n, c, s) = static_cast<T>(recipe.offset + recipe.scale * gaussian(recipe.seed, first + n, c, s));
    });
    result.push_back(std::move(part));
    first += counts[r];
  }
  return result;
}

template <class T>
Batch<T> batch(const Recipe& recipe, const std::vector<Index>& counts) {
  return batch<T>(recipe, counts, std::vector<std::vector<Index>>(counts.size(), recipe.spatial));
}

std::vector<double> parameters(std::uint64_t seed, Index channels, double center, double width) {
  std::vector<double> result(static_cast<std::size_t>(channels));
  for (std::size_t c = 0; c < result.size(); ++c) {
    // Rounded to f32, so that layers of both types hold the same number.
    result[c] = static_cast<double>(static_cast<float>(center + width * (2 * uniform(seed, c) - 1)));
  }
  return result;
}

template <class T>
void set_channel(Batch<T>& batch, Index channel, T value) {
  for (Tensor<T>& part : batch) {
    for (Index n = 0; n < part.shape.samples; ++n) {
      for (Index s = 0; s < part.shape.positions; ++s) part.at(n, channel, s) = value;
    }
  }
}

const char* name_of(Split split) {
  switch (split) {
    case Split::even:
      return "even";
    case Split::uneven:
      return "uneven";
    case Split::first_empty:
      return "first-empty";
    case Split::only_last:
      return "only-last";
    case Split::random:
      return "random";
  }
  return "?";
}

std::vector<Index> split(Split kind, Index samples, int ranks, std::uint64_t seed) {
  std::vector<Index> shares(static_cast<std::size_t>(ranks), 1);
  for (std::size_t r = 0; r < shares.size(); ++r) {
    if (kind == Split::uneven) shares[r] = static_cast<Index>(r) + 2;
    if (kind == Split::random) shares[r] = static_cast<Index>(uniform(seed, r) * 4);
  }
  if (kind == Split::first_empty && ranks > 1) shares.front() = 0;
  if (kind == Split::only_last) std::fill(shares.begin(), shares.end() - 1, 0);
  Index total = std::accumulate(shares.begin(), shares.end(), Index{0});
  if (total == 0) total = shares.back() = 1;

  // Cumulative rounding down gives every share its part and the sum exactly; `even` puts the rest in front instead.
  std::vector<Index> counts(shares.size());
  Index seen = 0;
  Index given = 0;
  for (std::size_t r = 0; r < shares.size(); ++r) {
    seen += shares[r];
    counts[r] = samples * seen / total - given;
    if (kind == Split::even) counts[r] = samples / ranks + (static_cast<Index>(r) < samples % ranks ? 1 : 0);
    given += counts[r];
  }
  return counts;
}

#define SYNCBN_INSTANTIATE(T)                                                                                   \
  template Batch<T> batch<T>(const Recipe&, const std::vector<Index>&);                                         \
  template Batch<T> batch<T>(const Recipe&, const std::vector<Index>&, const std::vector<std::vector<Index>>&); \
  template void set_channel<T>(Batch<T>&, Index, T);
SYNCBN_INSTANTIATE(float)
SYNCBN_INSTANTIATE(double)
SYNCBN_INSTANTIATE(bfloat16)
SYNCBN_INSTANTIATE(float16)
#undef SYNCBN_INSTANTIATE

}  // namespace syncbn::testing::inputs
