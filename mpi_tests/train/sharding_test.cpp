// SPDX-License-Identifier: MIT
// How the samples of a batch are handed to units: permutations, class mixes, limits, names.
#include "train/sharding.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "train/errors.hpp"
#include "train/random.hpp"
#include "train/trainer.hpp"

namespace syncbn::train {
namespace {

constexpr Index kCount = 2000;
constexpr const char* kModes[] = {"iid",         "by-class",        "dirichlet:0.3",    "dirichlet:1e-320",
                                  "dirichlet:5", "dirichlet:1e308", "dirichlet:2.5e-13"};

const std::vector<std::uint8_t>& labels() {
  static const std::vector<std::uint8_t> all = [] {
    const CounterRandom random(5, 5);
    std::vector<std::uint8_t> result;
    for (std::uint64_t i = 0; i < kCount; ++i) {  // low labels are more frequent
      result.push_back(static_cast<std::uint8_t>(std::min(random.below(2 * i, 10), random.below(2 * i + 1, 13))));
    }
    return result;
  }();
  return all;
}

SampleDealer dealer(const Sharding& sharding, std::uint64_t seed) {
  const bool has_mixes = sharding.kind == Sharding::Kind::dirichlet;
  return {sharding, labels(), seed, has_mixes ? draw_class_mixes(sharding.alpha, seed) : ClassMixes{}};
}

std::vector<Index> dealt(const Sharding& sharding, Index batch, std::uint64_t seed = 1, Index epoch = 1) {
  std::vector<Index> order = epoch_order(kCount, seed, epoch);
  dealer(sharding, seed).deal(order, batch, epoch);
  return order;
}

std::vector<Index> dealt(const std::string& mode, Index batch, std::uint64_t seed = 1, Index epoch = 1) {
  return dealt(Sharding::parse(mode), batch, seed, epoch);
}

std::array<double, kClassCount> class_parts(const Index* samples, Index count) {
  std::array<double, kClassCount> parts{};
  for (Index i = 0; i < count; ++i) {
    parts[labels()[static_cast<std::size_t>(samples[i])]] += 1 / static_cast<double>(count);
  }
  return parts;
}

/// How far the class mix of a unit is from its batch's: total variation distance, mean over units, batches and seeds.
double skew(const Sharding& sharding, Index batch) {
  double sum = 0;
  Index units = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const std::vector<Index> order = dealt(sharding, batch, seed);
    for (Index first = 0; first + batch <= kCount; first += batch) {
      const auto all = class_parts(order.data() + first, batch);
      for (Index unit = 0; unit < kUnitCount; ++unit, ++units) {
        const SampleRange range = unit_samples(batch, unit);
        const auto own = class_parts(order.data() + first + range.first, range.count);
        for (std::size_t c = 0; c < own.size(); ++c) sum += 0.5 * std::abs(own[c] - all[c]);
      }
    }
  }
  return sum / static_cast<double>(units);
}

double skew(const std::string& mode, Index batch) { return skew(Sharding::parse(mode), batch); }

TEST(SampleDealer, PermutesTheSamplesOfEachBatch) {
  for (const char* mode : kModes) {
    for (const Index batch : {1, 4, 7, 8, 22, 64, 300, 2000}) {
      const std::vector<Index> before = epoch_order(kCount, 1, 1);
      const std::vector<Index> after = dealt(mode, batch);
      for (Index first = 0; first < kCount; first += batch) {  // the last, incomplete batch as well
        const Index last = std::min(kCount, first + batch);
        ASSERT_TRUE(std::is_permutation(before.begin() + first, before.begin() + last, after.begin() + first))
            << mode << ", batch " << batch << " from sample " << first;
      }
    }
  }
}

TEST(SampleDealer, LeavesIidAsItIs) { EXPECT_EQ(dealt("iid", 64), epoch_order(kCount, 1, 1)); }

TEST(SampleDealer, SortsByClassAndKeepsTheOrderWithinOne) {
  const std::vector<Index> before = epoch_order(kCount, 1, 1);
  const std::vector<Index> after = dealt("by-class", 64);
  for (Index first = 0; first < kCount; first += 64) {
    std::vector<Index> wanted;
    for (int c = 0; c < kClassCount; ++c) {
      for (Index i = first; i < std::min(kCount, first + 64); ++i) {
        const Index sample = before[static_cast<std::size_t>(i)];
        if (labels()[static_cast<std::size_t>(sample)] == c) wanted.push_back(sample);
      }
    }
    EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), after.begin() + first)) << "from sample " << first;
  }
}

TEST(SampleDealer, DependsOnSeedAndEpochAlone) {
  for (const std::string mode : {"dirichlet:0.3", "dirichlet:40"}) {
    EXPECT_EQ(dealt(mode, 64), dealt(mode, 64)) << mode;
    // The same order of samples, so that what is left is the dealer's.
    const std::vector<Index> order = epoch_order(kCount, 1, 1);
    std::set<std::vector<Index>> orders = {order};
    for (const auto& [seed, epoch] : {std::pair<std::uint64_t, Index>{1, 1}, {2, 1}, {1, 2}}) {
      std::vector<Index> other = order;
      dealer(Sharding::parse(mode), seed).deal(other, 64, epoch);
      EXPECT_TRUE(orders.insert(other).second) << mode << ", seed " << seed << ", epoch " << epoch;
    }
  }
}

// Where several units have the same first wish, none gets all of it: so few classes are not quite as few as by class.
TEST(SampleDealer, GoesFromIidToFewClassesAsAlphaFalls) {
  for (const Index batch : {64, 256}) {
    const double iid = skew("iid", batch);
    const double by_class = skew("by-class", batch);
    EXPECT_LT(iid, 0.8 * by_class) << "batch " << batch;
    EXPECT_NEAR(skew("dirichlet:1e9", batch), iid, 0.03 * by_class) << "batch " << batch;
    double last = 0.9 * iid;
    for (const char* mode : {"dirichlet:100", "dirichlet:1", "dirichlet:0.1"}) {
      const double now = skew(mode, batch);
      EXPECT_GT(now, last) << mode << ", batch " << batch;
      last = now;
    }
    EXPECT_NEAR(skew("dirichlet:1e-6", batch), by_class, 0.2 * by_class) << "batch " << batch;
    EXPECT_NEAR(skew("dirichlet:1e-320", batch), by_class, 0.2 * by_class) << "batch " << batch;
  }
}

// A unit has its class mix for the whole training: what it got in one epoch tells what it gets in another.
TEST(SampleDealer, GivesAUnitTheSameMixInEveryEpoch) {
  constexpr Index kBatch = 64;
  const auto parts_of_unit = [](const std::vector<Index>& order, Index unit) {
    std::vector<Index> samples;
    const SampleRange range = unit_samples(kBatch, unit);
    for (Index first = 0; first + kBatch <= kCount; first += kBatch) {
      samples.insert(samples.end(), order.begin() + first + range.first,
                     order.begin() + first + range.first + range.count);
    }
    return class_parts(samples.data(), static_cast<Index>(samples.size()));
  };
  const auto distance = [](const auto& a, const auto& b) {
    double sum = 0;
    for (std::size_t c = 0; c < a.size(); ++c) sum += 0.5 * std::abs(a[c] - b[c]);
    return sum;
  };
  double own = 0, others = 0;
  const std::vector<Index> first = dealt("dirichlet:0.1", kBatch, 1, 1);
  const std::vector<Index> second = dealt("dirichlet:0.1", kBatch, 1, 2);
  for (Index unit = 0; unit < kUnitCount; ++unit) {
    own += distance(parts_of_unit(first, unit), parts_of_unit(second, unit)) / kUnitCount;
    others += distance(parts_of_unit(first, unit), parts_of_unit(second, (unit + 1) % kUnitCount)) / kUnitCount;
  }
  EXPECT_LT(own, 0.1);
  EXPECT_GT(others, 0.3);
}

// Mean and variance of a Dirichlet distribution's components: 1/K and (1/K)(1 - 1/K)/(K alpha + 1).
TEST(ClassMixes, HaveTheMomentsOfTheDistribution) {
  constexpr double kMean = 1.0 / kClassCount;
  for (const double alpha : {0.02, 0.3, 0.9, 1.0, 1.1, 7.0, 500.0}) {
    double squares = 0, first_parts = 0;
    constexpr int kSeeds = 1500;
    for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
      for (const ClassMix& mix : draw_class_mixes(alpha, seed)) {
        double largest = mix[0].exponent;
        for (const ScaledNumber& number : mix) largest = std::max(largest, number.exponent);
        std::array<double, kClassCount> parts{};
        double sum = 0;
        for (std::size_t c = 0; c < mix.size(); ++c) {
          EXPECT_GE(mix[c].mantissa, 1);
          EXPECT_LE(mix[c].mantissa, 2);
          sum += parts[c] = mix[c].mantissa * std::exp2(mix[c].exponent - largest);
        }
        for (const double part : parts) squares += (part / sum - kMean) * (part / sum - kMean);
        first_parts += parts[0] / sum;
      }
    }
    const double mixes = kSeeds * kUnitCount;
    const double variance = kMean * (1 - kMean) / (kClassCount * alpha + 1);
    EXPECT_NEAR(squares / (mixes * kClassCount), variance, 0.04 * variance) << "alpha " << alpha;
    EXPECT_NEAR(first_parts / mixes, kMean, 4 * std::sqrt(variance / mixes)) << "alpha " << alpha;
  }
}

TEST(ClassMixes, KeepTheOrderOfWishesThatADoubleCannotHold) {
  for (const double alpha : {1e-6, 1e-320}) {
    for (const ClassMix& mix : draw_class_mixes(alpha, 3)) {
      std::set<double> exponents;
      for (const ScaledNumber& number : mix) {
        EXPECT_TRUE(std::isfinite(number.exponent));
        exponents.insert(number.exponent);
      }
      EXPECT_EQ(exponents.size(), mix.size()) << "alpha " << alpha;
    }
  }
}

TEST(Sharding, NamesAreReadAndWritten) {
  for (const char* name : {"iid", "by-class", "dirichlet:0.3", "dirichlet:1e-300", "dirichlet:5"}) {
    EXPECT_EQ(Sharding::parse(name).name(), name);
  }
  EXPECT_EQ(Sharding::parse("dirichlet:0.10").name(), "dirichlet:0.1");
  EXPECT_EQ(Sharding::parse("dirichlet:0.1").alpha, 0.1);
  for (const char* name : {"", "IID", "byclass", "by-class:2", "dirichlet", "dirichlet:", "dirichlet:0", "dirichlet:-1",
                           "dirichlet:-0", "dirichlet:nan", "dirichlet:inf", "dirichlet:1e999", "dirichlet:0x1",
                           "dirichlet:1,5", "dirichlet: 1", "dirichlet:1e-400"}) {
    EXPECT_THROW(Sharding::parse(name), UsageError) << name;
  }
}

}  // namespace
}  // namespace syncbn::train
