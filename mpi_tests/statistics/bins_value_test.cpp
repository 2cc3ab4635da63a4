// SPDX-License-Identifier: MIT
// The one rounding at the end of a sum: to double, to double-double, to float.
#include <algorithm>
#include <cmath>
#include <cstring>

#include <gtest/gtest.h>

#include "accumulator.hpp"

namespace syncbn::testing {
namespace {

using statistics::DoubleDouble;
using statistics::round_to_float;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLargest = std::numeric_limits<double>::max();
constexpr double kLeast = std::numeric_limits<double>::denorm_min();

/// The same number, and the same sign if it is zero.
template <class T>
::testing::AssertionResult is_same(T got, T wanted) {
  if (got == wanted && std::signbit(got) == std::signbit(wanted)) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << std::hexfloat << "got " << got << ", wanted " << wanted;
}

class BinsValue : public ::testing::TestWithParam<int> {
 protected:
  int bins() const { return GetParam(); }

  /// What sum_of and round_to_float make of the bins, against the exact content of the bins.
  void check(const std::vector<double>& values) const {
    const Accumulator sum(bins(), values);
    const Exact exact = sum.exact();
    const DoubleDouble got = sum.sum();
    ASSERT_TRUE(is_same(got.hi, exact.to_double())) << sum;
    ASSERT_TRUE(is_same(round_to_float(got), exact.to_float())) << sum;
    if (std::isfinite(got.hi)) {
      ASSERT_EQ(got.lo, (exact - Exact(got.hi)).to_double()) << sum;
    } else {
      ASSERT_EQ(got.lo, 0.0) << sum;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Precision, BinsValue, ::testing::Values(3, 5), ::testing::PrintToStringParamName());

TEST_P(BinsValue, IsTheContentOfTheBinsRoundedOnce) {
  Random random(1);
  for (int trial = 0; trial < 1000; ++trial) {
    const int bin = static_cast<int>(random() % 56) - 29;
    const std::vector<double> pool = nasty_values(bin, bin + static_cast<int>(random() % 3));
    for (int set = 0; set < 50; ++set) {
      std::vector<double> values(1 + random() % 8);
      for (double& value : values) value = any_of(pool, random);
      ASSERT_NO_FATAL_FAILURE(check(values)) << "trial " << trial;
    }
  }
}

/// All terms within the kept bits: then the sum is the correctly rounded exact one.
TEST_P(BinsValue, IsTheCorrectlyRoundedSumOfTermsWithinTheKeptBits) {
  Random random(2);
  for (int trial = 0; trial < 20000; ++trial) {
    const int exponent = static_cast<int>(random() % 1900) - 950;
    std::vector<double> values;
    for (int n = 0; n < 6; ++n) {
      const auto integer = static_cast<std::int64_t>(random()) >> (11 + random() % 53);
      values.push_back(std::ldexp(static_cast<double>(integer), exponent + static_cast<int>(random() % 12)));
    }
    const Accumulator sum(bins(), values);
    const Exact exact = exact_sum(values);
    ASSERT_EQ(sum.exact(), exact) << "trial " << trial;
    ASSERT_TRUE(is_same(sum.sum().hi, exact.to_double())) << "trial " << trial;
  }
}

TEST_P(BinsValue, DecidesTiesAndNearTiesOfDoubles) {
  // 1 + half an ulp, and the same with a bit far below: a second rounding would lose it.
  for (const double base : {1.0, 1.0 + 0x1p-52}) {
    for (const double sign : {1.0, -1.0}) {
      for (const double near : {0.0, 0x1p-70, -0x1p-70}) {
        for (const double scale : {1.0, 0x1p900, 0x1p-900}) {
          const double factor = sign * scale;
          ASSERT_NO_FATAL_FAILURE(check({factor * base, factor * 0x1p-53, factor * near}));
        }
      }
    }
  }
}

TEST_P(BinsValue, DecidesTiesAndNearTiesOfFloats) {
  for (const double base : {1.0, 1.0 + 0x1p-23, 2.0 - 0x1p-23, 0x1.fffffep127, 0x1p-149, 0x1p-126, 0x1.8p-148}) {
    const double half_ulp = 0.5 * std::max(std::ldexp(1.0, std::ilogb(base) - 23), 0x1p-149);
    for (const double sign : {1.0, -1.0}) {
      for (const double half : {half_ulp, -half_ulp, half_ulp / 2}) {
        for (const double near :
             {0.0, half_ulp * 0x1p-29, half_ulp * -0x1p-29, half_ulp * 0x1p-40, half_ulp * -0x1p-40}) {
          ASSERT_NO_FATAL_FAILURE(check({sign * base, sign * half, sign * near}));
        }
      }
    }
  }
}

TEST_P(BinsValue, OverflowsFromHalfAnUlpBeyondTheLargestDouble) {
  const double half_ulp = 0x1p970;
  EXPECT_EQ(Accumulator(bins(), {kLargest, half_ulp}).sum().hi, kInfinity);
  EXPECT_EQ(Accumulator(bins(), {kLargest, half_ulp - 0x1p930}).sum().hi, kLargest);
  EXPECT_EQ(Accumulator(bins(), {-kLargest, -kLargest}).sum().hi, -kInfinity);
  EXPECT_EQ(Accumulator(bins(), {-kLargest, -kLargest}).sum().lo, 0.0);
  EXPECT_EQ(Accumulator(bins(), {kLargest, kLargest, -kLargest}).sum().hi, kLargest) << "no infinity on the way";
}

TEST_P(BinsValue, KeepsTheLeastDoubles) {
  ASSERT_NO_FATAL_FAILURE(check({kLeast}));
  ASSERT_NO_FATAL_FAILURE(check({kLeast, kLeast, -3 * kLeast}));
  ASSERT_NO_FATAL_FAILURE(check({std::numeric_limits<double>::min(), -kLeast}));
}

/// Pairs as they come out of a sum, hi nearest to hi + lo, against the oracle.
TEST(RoundToFloat, RoundsAPairOnce) {
  Random random(3);
  for (int trial = 0; trial < 200000; ++trial) {
    // Short significands, so that ties of floats are common.
    const double hi_part = std::ldexp(static_cast<double>(static_cast<std::int64_t>(random()) >> (11 + random() % 40)),
                                      static_cast<int>(random() % 330) - 190);
    const double lo_part = std::ldexp(hi_part, -24 - static_cast<int>(random() % 80));
    const DoubleDouble pair = statistics::two_sum(hi_part, random() % 2 != 0 ? lo_part : -lo_part);
    const Exact exact = Exact(pair.hi) + Exact(pair.lo);
    ASSERT_TRUE(is_same(round_to_float(pair), exact.to_float())) << std::hexfloat << pair.hi << " + " << pair.lo;
  }
}

TEST(RoundToFloat, PassesOnWhatIsNotFinite) {
  EXPECT_EQ(round_to_float({kInfinity, 0.0}), std::numeric_limits<float>::infinity());
  EXPECT_EQ(round_to_float({-kInfinity, 0.0}), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(round_to_float({std::nan(""), 0.0})));
  EXPECT_EQ(round_to_float({kLargest, kLargest * 0x1p-54}), std::numeric_limits<float>::infinity());
}

/// Values that are not finite, by the rules of IEEE addition without its order: any NaN, or both infinities, make NaN.
TEST_P(BinsValue, OfNonFiniteTermsFollowsAddition) {
  const double nan = std::nan("");
  const auto value_of = [this](std::vector<double> values) {
    double first = 0.0;
    std::sort(values.begin(), values.end(), [](double a, double b) { return std::memcmp(&a, &b, sizeof a) < 0; });
    bool is_first = true;
    do {
      Accumulator left(bins(), {values[0]});
      Accumulator right(bins(), {values.begin() + 1, values.end()});
      EXPECT_EQ((right.merge(left), right), Accumulator(bins(), values));
      const double value = right.sum().hi;
      if (is_first) first = value;
      is_first = false;
      EXPECT_TRUE(value == first || (std::isnan(value) && std::isnan(first)));
    } while (std::next_permutation(values.begin(), values.end(),
                                   [](double a, double b) { return std::memcmp(&a, &b, sizeof a) < 0; }));
    return first;
  };
  EXPECT_EQ(value_of({1.0, kInfinity}), kInfinity);
  EXPECT_EQ(value_of({1.0, -kInfinity, -1e300, 1e300}), -kInfinity);
  EXPECT_EQ(value_of({kInfinity, kInfinity, -5.0}), kInfinity);
  EXPECT_TRUE(std::isnan(value_of({kInfinity, 3.0, -kInfinity})));
  EXPECT_TRUE(std::isnan(value_of({nan, 3.0})));
  EXPECT_TRUE(std::isnan(value_of({-kInfinity, 3.0, nan, -kInfinity})));
  EXPECT_TRUE(std::isnan(value_of({-nan, 0.0})));
}

}  // namespace
}  // namespace syncbn::testing
