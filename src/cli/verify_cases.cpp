// SPDX-License-Identifier: MIT
#include "verify_cases.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <sstream>

#include "shards.hpp"
#include "train/random.hpp"

namespace syncbn::cli {
namespace {

using train::CounterRandom;

enum Stream : std::uint64_t { kSizes, kX, kDy, kGamma, kBeta, kCentre, kWidth };

/// To a multiple of 2^-12: below 2^11 it has 23 bits, and x + h is exact for every step that central differences take.
double few_bits(double value) { return std::round(value * 0x1p12) * 0x1p-12; }

Features random_features(const CounterRandom& random, Index count, double low, double high) {
  Features values(static_cast<std::size_t>(count));
  for (std::size_t j = 0; j < values.size(); ++j) values[j] = few_bits(random.uniform(j, low, high));
  return values;
}

/// Near-even; all on the last rank; the first rank empty; or cut at random places, where cuts may meet.
std::vector<Index> random_shards(const CounterRandom& random, int kind, Index samples, int ranks) {
  std::vector<Index> shards(static_cast<std::size_t>(ranks), 0);
  switch (ranks == 1 ? 0 : kind % 4) {
    case 0:
      return even_shards(samples, ranks);
    case 1: {
      std::vector<Index> cuts = {0, samples};
      for (int r = 1; r < ranks; ++r) {
        cuts.push_back(
            static_cast<Index>(random.below(static_cast<std::uint64_t>(r), static_cast<std::uint64_t>(samples) + 1)));
      }
      std::sort(cuts.begin(), cuts.end());
      for (std::size_t r = 0; r < shards.size(); ++r) shards[r] = cuts[r + 1] - cuts[r];
      return shards;
    }
    case 2: {
      const auto rest = even_shards(samples, ranks - 1);
      std::copy(rest.begin(), rest.end(), shards.begin() + 1);
      return shards;
    }
    default:
      shards.back() = samples;
      return shards;
  }
}

}  // namespace

VerifyCase worked_example(double eps, int ranks) {
  VerifyCase example;
  example.name = "Worked example";
  example.x = Matrix(2, 3);
  example.x.values = {1, 2, 3, 3, -2, 7};
  example.dy = Matrix(2, 3);
  example.dy.values = {1, -1, 2, 3, 1, 0.5};
  example.parameters = {{1, 2, -1}, {0, 1, 0.5}, eps};
  example.shards.assign(static_cast<std::size_t>(ranks), 0);
  ++example.shards.front();
  ++example.shards.back();
  return example;
}

VerifyCase random_case(std::uint64_t seed, int index, double eps, int ranks) {
  constexpr std::array<Index, 4> kPositions = {1, 6, 1, 9};
  const auto turn = static_cast<std::size_t>(index);
  const CounterRandom random = CounterRandom(seed, 0).substream(turn);
  const CounterRandom sizes = random.substream(kSizes);
  const Index samples = 5 + static_cast<Index>(sizes.below(0, 12));
  const Index features = 1 + static_cast<Index>(sizes.below(1, 6));

  VerifyCase result;
  result.positions = kPositions[turn % kPositions.size()];
  result.layout = turn / 2 % 2 == 0 ? Layout::channels_first : Layout::channels_last;
  result.shards = random_shards(sizes.substream(2), index, samples, ranks);
  result.x = Matrix(samples * result.positions, features);
  result.dy = Matrix(samples * result.positions, features);
  const Features centre = random_features(random.substream(kCentre), features, -4.0, 4.0);
  const Features width = random_features(random.substream(kWidth), features, 0.5, 4.0);
  for (Index i = 0; i < result.x.rows; ++i) {
    for (Index j = 0; j < features; ++j) {
      const auto counter = static_cast<std::uint64_t>(i * features + j);
      const auto feature = static_cast<std::size_t>(j);
      result.x.at(i, j) = few_bits(centre[feature] + width[feature] * random.substream(kX).uniform(counter, -1.0, 1.0));
      result.dy.at(i, j) = few_bits(random.substream(kDy).uniform(counter, -2.0, 2.0));
    }
  }
  result.parameters = {random_features(random.substream(kGamma), features, -2.0, 2.0),
                       random_features(random.substream(kBeta), features, -1.0, 1.0), eps};
  std::ostringstream name;
  name << samples << " samples, " << features << " features";
  if (result.positions > 1) name << ", " << result.positions << " positions, " << name_of(result.layout);
  name << "; samples per rank: " << shards_text(result.shards);
  result.name = name.str();
  return result;
}

}  // namespace syncbn::cli
