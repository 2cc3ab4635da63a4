// SPDX-License-Identifier: MIT
// A binned accumulator is a function of the set of values: against its definition, in all orders and groupings.
#include "statistics/bins.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include <gtest/gtest.h>

#include "accumulator.hpp"

namespace syncbn::testing {
namespace {

using statistics::kBinWidth;
using statistics::kNoWindow;
using statistics::kTopHalf;

constexpr int kLowestBin = -30;  // of the least subnormal
constexpr int kHighestBin = 28;

std::string text_of(const std::vector<double>& values) {
  std::string text = "values:";
  char number[40];
  for (const double value : values) {
    std::snprintf(number, sizeof number, " %a", value);
    text += number;
  }
  return text;
}

/// Both numbers of bins that are in use.
class Bins : public ::testing::TestWithParam<int> {
 protected:
  int bins() const { return GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Precision, Bins, ::testing::Values(3, 5), ::testing::PrintToStringParamName());

TEST(TopFor, FollowsItsDefinition) {
  Random random(1);
  std::vector<double> values = nasty_values(kLowestBin, kHighestBin);
  for (int trial = 0; trial < 2000; ++trial) {
    values.push_back(
        std::ldexp(static_cast<double>(static_cast<std::int64_t>(random())), static_cast<int>(random() % 2040) - 1130));
  }
  for (const double value : values) {
    if (value != 0.0 && std::isfinite(value)) {
      EXPECT_EQ(statistics::top_for(value), top_by_definition(value)) << text_of({value});
    }
  }
}

TEST(TopFor, BothSignsAgreeWhereItSaysSo) {
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(statistics::top_for_both_signs(0.0), statistics::kNoWindow);
  EXPECT_EQ(statistics::top_for_both_signs(infinity), statistics::kNoTop);
  EXPECT_EQ(statistics::top_for_both_signs(std::nan("")), statistics::kNoTop);
  int rare = 0;
  for (int exponent = -1074; exponent < 1024; ++exponent) {
    const double power = std::ldexp(1.0, exponent);
    // Around powers of two, half a unit of a top bin above and below them, and in between.
    for (const double offset : {0.0, 0x1p-52, 0x1p-36, 0x1.8p-36, 0x1p-35, 0.5, -0x1p-52, -0x1p-36, -0x1.8p-36}) {
      for (const double away : {0.0, infinity}) {
        const double value = std::nextafter(power * (1.0 + offset), away);
        if (!std::isfinite(value) || value == 0.0) continue;
        const int top = statistics::top_for_both_signs(value);
        const bool agree = statistics::top_for(value) == statistics::top_for(-value);
        ASSERT_EQ(top, agree ? statistics::top_for(value) : statistics::kNoTop) << std::hexfloat << value;
        rare += agree ? 0 : 1;
        const double pair[] = {value, value};
        const int common = statistics::common_top_for_both_signs(pair, 2);
        ASSERT_TRUE(common == top || common == statistics::kNoTop) << std::hexfloat << value;
      }
    }
  }
  EXPECT_GT(rare, 0);
}

TEST(TopFor, CommonTopIsThatOfAll) {
  const double tops_apart[] = {1.0, 0.01};
  EXPECT_EQ(statistics::common_top_for_both_signs(tops_apart, 2), statistics::kNoTop);
  const double with_zero[] = {1.0, 0.0};
  EXPECT_EQ(statistics::common_top_for_both_signs(with_zero, 2), statistics::kNoTop);
  const double with_nan[] = {std::nan(""), 1.0};
  EXPECT_EQ(statistics::common_top_for_both_signs(with_nan, 2), statistics::kNoTop);
  const double ordinary[] = {3.0, 0.3, 1e9, 2.0};
  EXPECT_EQ(statistics::common_top_for_both_signs(ordinary, 4), statistics::top_for(3.0));
}

TEST(TopFor, GrowsWithTheMagnitudeOfValuesOfOneSign) {
  std::vector<double> values;
  for (const double value : nasty_values(kLowestBin, kHighestBin)) {
    if (value != 0.0) values.push_back(std::abs(value));
  }
  std::sort(values.begin(), values.end());
  for (const double sign : {1.0, -1.0}) {
    for (std::size_t i = 1; i < values.size(); ++i) {
      EXPECT_LE(statistics::top_for(sign * values[i - 1]), statistics::top_for(sign * values[i]))
          << text_of({values[i - 1], values[i]});
    }
  }
}

/// The property on which the proof in bins.hpp stands: a value that fits bin t as its top leaves nothing in the bins
/// above, whatever bin the cutting begins at.
TEST(TopFor, NothingOfAValueReachesTheBinAboveItsTop) {
  for (const double value : nasty_values(kLowestBin, kHighestBin)) {
    if (value == 0.0) continue;
    EXPECT_TRUE(Exact(value).rounded_to(unit_exponent(statistics::top_for(value) + 1)).is_zero()) << text_of({value});
  }
}

TEST_P(Bins, HoldOneValueRoundedToTheLowestBin) {
  for (const double value : nasty_values(kLowestBin, kHighestBin)) {
    const Accumulator sum(bins(), {value});
    ASSERT_EQ(sum.exact(), sum_by_definition({value}, bins())) << text_of({value}) << sum;
    ASSERT_EQ(sum == Accumulator(bins()), value == 0.0) << "a zero opens no window, and nothing else leaves it shut";
  }
}

/// Every way in which one value can meet the window of another: `low` before and after `high`, at every distance.
TEST_P(Bins, ValueIsCutAlikeBeforeAndAfterALargerOne) {
  for (const int bin : {-29, -1, 0}) {
    const std::vector<double> lows = border_values(bin, bin);
    const std::vector<double> highs = border_values(bin, bin + bins() + 2);
    for (const double low : lows) {
      for (const double high : highs) {
        const Accumulator low_first(bins(), {low, high});
        const Accumulator high_first(bins(), {high, low});
        Accumulator merged(bins(), {low});
        merged.merge(Accumulator(bins(), {high}));
        ASSERT_EQ(low_first, high_first) << text_of({low, high});
        ASSERT_EQ(low_first, merged) << text_of({low, high});
        ASSERT_EQ(low_first.exact(), sum_by_definition({low, high}, bins())) << text_of({low, high}) << low_first;
      }
    }
  }
}

void expect_all_orders_agree(std::vector<double> values, int bins) {
  std::sort(values.begin(), values.end());
  const Accumulator expected(bins, values);
  ASSERT_EQ(expected.exact(), sum_by_definition(values, bins)) << text_of(values) << "\n" << expected;
  do {
    ASSERT_EQ(Accumulator(bins, values), expected) << text_of(values);
  } while (std::next_permutation(values.begin(), values.end()));
}

TEST_P(Bins, AllOrdersOfSmallSetsAgree) {
  Random random(2);
  for (int trial = 0; trial < 400; ++trial) {
    const int bin = static_cast<int>(random() % 50) - 28;
    const std::vector<double> pool = nasty_values(bin, bin + bins());
    std::vector<double> values;
    for (int n = 2 + trial % 5; n > 0; --n) values.push_back(any_of(pool, random));
    ASSERT_NO_FATAL_FAILURE(expect_all_orders_agree(values, bins())) << "trial " << trial;
  }
}

TEST_P(Bins, AdversarialCancellationAgreesInAllOrders) {
  const double one_third = 1.0 / 3.0;
  const std::vector<std::vector<double>> sets = {
      {1e30, 1.0, -1e30},
      {1e300, 1e-300, -1e300, -1e-300, 1.0},
      {0x1p-1074, 0x1p1023, -0x1p1023},
      {0x1.fffffffffffffp1023, 0x1.fffffffffffffp1023, -0x1.fffffffffffffp1023, -0x1.fffffffffffffp1023, 1.0},
      {one_third, -0x1p108, 0x1p108, 0x1p72, -0x1p72},
      {0x1p35, -0x1p35, 0x1p-1, -0x1p-1, 0x1p71, -0x1p71},
  };
  for (const auto& set : sets) ASSERT_NO_FATAL_FAILURE(expect_all_orders_agree(set, bins()));
}

/// Small values first, then ever larger ones: the window rises by one, two and many bins.
TEST_P(Bins, WindowsThatRiseLateLoseWhatTheyWouldHaveLostAtOnce) {
  for (int step = 1; step <= bins() + 1; ++step) {
    std::vector<double> values;
    for (int bin = kLowestBin; bin < 26; bin += step) {
      for (const double value : {0x1.5555555555555p0, -0x1.2492492492492p-7, 0x1.8p-36}) {
        values.push_back(std::ldexp(value, unit_exponent(bin)));
      }
    }
    const Accumulator rising(bins(), values);
    std::reverse(values.begin(), values.end());
    EXPECT_EQ(rising, Accumulator(bins(), values)) << "step " << step;
    EXPECT_EQ(rising.exact(), sum_by_definition(values, bins())) << "step " << step;
  }
}

/// Adds values[begin, end) along a random binary tree, leaves of random size.
Accumulator sum_of_random_tree(const std::vector<double>& values, std::size_t begin, std::size_t end, int bins,
                               Random& random) {
  if (end - begin < 2 || random() % 5 == 0) {
    return Accumulator(
        bins, {values.begin() + static_cast<std::ptrdiff_t>(begin), values.begin() + static_cast<std::ptrdiff_t>(end)});
  }
  const std::size_t middle = begin + random() % (end - begin + 1);  // one side may be empty
  Accumulator left = sum_of_random_tree(values, begin, middle, bins, random);
  Accumulator right = sum_of_random_tree(values, middle, end, bins, random);
  Accumulator right_first = right;
  right_first.merge(left);
  left.merge(right);
  EXPECT_EQ(left, right_first) << "merging is not commutative";
  return left;
}

TEST_P(Bins, RandomTreesOfMergesAgree) {
  Random random(3);
  for (int trial = 0; trial < 300; ++trial) {
    const int bin = static_cast<int>(random() % 50) - 28;
    const std::vector<double> pool = nasty_values(bin, bin + static_cast<int>(random() % 7));
    std::vector<double> values(1 + random() % 60);
    for (double& value : values) value = any_of(pool, random);
    const Accumulator expected(bins(), values);
    ASSERT_EQ(expected.exact(), sum_by_definition(values, bins())) << "trial " << trial;
    for (int tree = 0; tree < 8; ++tree) {
      std::shuffle(values.begin(), values.end(), random);
      ASSERT_EQ(sum_of_random_tree(values, 0, values.size(), bins(), random), expected) << "trial " << trial;
    }
  }
}

TEST_P(Bins, AnEmptySetIsNeutral) {
  const Accumulator sum(bins(), {3.0, -1e-20});
  Accumulator left(bins());
  left.merge(sum);
  Accumulator right = sum;
  right.merge(Accumulator(bins(), {0.0, -0.0}));
  EXPECT_EQ(left, sum);
  EXPECT_EQ(right, sum);
  EXPECT_EQ(Accumulator(bins()).sum().hi, 0.0);
  EXPECT_FALSE(std::signbit(Accumulator(bins(), {-0.0}).sum().hi));
  EXPECT_FALSE(std::signbit(Accumulator(bins(), {-1.0, 1.0}).sum().hi));
}

/// The error of each deposit is at most half a unit of the lowest bin, and the largest value, which needed the top bin
/// t, is at least (kTopHalf - 1/2) units of bin t-1. So with kTopHalf = 2^(W-2) or more: at most 2^-72, or 2^-144, of
/// it (bins.hpp says how much more exactly).
TEST_P(Bins, ErrorStaysWithinTheDocumentedBound) {
  const int bound = bins() == 3 ? -72 : -144;
  Random random(4);
  for (int trial = 0; trial < 400; ++trial) {
    const int bin = static_cast<int>(random() % 50) - 28;
    const std::vector<double> pool = nasty_values(bin, bin + bins());
    std::vector<double> values(1 + random() % 40);
    for (double& value : values) value = any_of(pool, random);
    const Exact error = (Accumulator(bins(), values).exact() - exact_sum(values)).magnitude();
    const auto count = static_cast<std::int64_t>(values.size());
    ASSERT_LE(error, Exact::scaled(count, bound) * Exact(largest_magnitude(values))) << text_of(values);
  }
  // The worst case there is: the least value that needs its top, and others just below half a unit of the lowest bin.
  const double largest = std::ldexp(static_cast<double>(kTopHalf) - 0.5, unit_exponent(4));
  const double lost = std::nextafter(std::ldexp(0.5, unit_exponent(5 - bins() + 1)), 0.0);
  ASSERT_EQ(statistics::top_for(largest), 5);
  const Exact error = Accumulator(bins(), {largest, lost}).exact() - exact_sum({largest, lost});
  EXPECT_EQ(error, -Exact(lost));
  EXPECT_LE(error.magnitude(), Exact::scaled(1, bound) * Exact(largest));
}

TEST_P(Bins, FloatsWithinThePromisedRangeAreExact) {
  Random random(5);
  for (int trial = 0; trial < 2000; ++trial) {
    const int exponent = static_cast<int>(random() % 70) - 35;
    std::vector<double> values = {std::ldexp(1.0, exponent)};
    for (int n = 0; n < 10; ++n) {
      const double significand = 1.0 + static_cast<double>(random() % (1u << 23)) * 0x1p-23;
      const double sign = random() % 2 != 0 ? 1.0 : -1.0;
      values.push_back(sign * std::ldexp(significand, exponent - 1 - static_cast<int>(random() % 48)));
    }
    ASSERT_EQ(Accumulator(bins(), values).exact(), exact_sum(values)) << text_of(values);
  }
}

TEST_P(Bins, TakeAsManyDepositsAsDocumented) {
  // Values whose slices are as large as they can be: half a unit of the bin above, and the ends of the top's range.
  const double half_above = std::ldexp(0.5, unit_exponent(1));
  const double top_end = std::ldexp(static_cast<double>(kTopHalf - 1), unit_exponent(1));
  const double low_end = std::ldexp(-static_cast<double>(kTopHalf), unit_exponent(1));
  for (const double value : {half_above, -half_above, top_end, low_end, std::nextafter(half_above, 0.0)}) {
    Accumulator sum(bins(), {value});
    for (std::int64_t deposits = 1; deposits < statistics::kMaxDeposits; deposits *= 2) sum.merge(Accumulator(sum));
    const Exact expected =
        Exact::scaled(statistics::kMaxDeposits, 0) * Exact(value).rounded_to(unit_exponent(2 - bins()));
    EXPECT_EQ(sum.exact(), expected) << value << " " << sum;
    EXPECT_EQ(sum.sum().hi, expected.to_double()) << value << " " << sum;
  }
}

}  // namespace
}  // namespace syncbn::testing
