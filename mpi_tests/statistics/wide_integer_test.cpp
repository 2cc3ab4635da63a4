// SPDX-License-Identifier: MIT
#include "statistics/wide_integer.hpp"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "support/exact.hpp"

namespace syncbn::testing {
namespace {

using statistics::DoubleDouble;
using statistics::WideInteger;

constexpr int kBits = 64 * WideInteger::kWords;

/// The same integer in both forms.
struct Twin {
  WideInteger wide;
  Exact exact;
};

/// Sum of up to 4 shifted words: of `bits` bits at most, and often with long runs of zeros or ones.
Twin random_twin(int bits, std::mt19937_64& random) {
  Twin twin;
  for (int term = static_cast<int>(random() % 4); term >= 0; --term) {
    auto word = static_cast<std::int64_t>(random()) >> (random() % 63);
    if (random() % 4 == 0) word = (random() % 2 != 0 ? 1 : -1) * (std::int64_t{1} << (random() % 62));
    const int shift = static_cast<int>(random() % static_cast<std::uint64_t>(bits - 66));
    WideInteger shifted(word);
    shifted <<= shift;
    twin.wide += shifted;
    twin.exact += Exact::scaled(word, shift);
  }
  return twin;
}

/// Reads a WideInteger back, 53 bits at a time; ends after 10 + 1 pieces of 512 bits.
Exact exact_of(WideInteger value) {
  Exact total;
  for (int piece = 0; piece < 12 && !value.is_zero(); ++piece) {
    int exponent = 0;
    const double hi = value.to_double_double(0).hi;
    total += Exact(hi);
    WideInteger taken(static_cast<std::int64_t>(std::frexp(hi, &exponent) * 0x1p53));
    if (exponent < 53) {  // a small integer
      taken = WideInteger(static_cast<std::int64_t>(hi));
    } else {
      taken <<= exponent - 53;
    }
    value -= taken;
  }
  EXPECT_TRUE(value.is_zero());
  return total;
}

TEST(WideInteger, HoldsTheEndsOfInt64) {
  for (const std::int64_t value : {std::int64_t{0}, std::int64_t{1}, std::int64_t{-1}, INT64_MAX, INT64_MIN}) {
    EXPECT_EQ(exact_of(WideInteger(value)), Exact::scaled(value, 0)) << value;
    EXPECT_EQ(WideInteger(value).is_negative(), value < 0);
  }
  EXPECT_EQ(WideInteger(INT64_MIN).bit_length(), 64);
  EXPECT_EQ(WideInteger(0).bit_length(), 0);
}

TEST(WideInteger, AddsAndSubtracts) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 5000; ++trial) {
    const Twin a = random_twin(kBits - 2, random);
    const Twin b = random_twin(kBits - 2, random);
    WideInteger sum = a.wide;
    sum += b.wide;
    WideInteger difference = a.wide;
    difference -= b.wide;
    ASSERT_EQ(exact_of(sum), a.exact + b.exact) << "trial " << trial;
    ASSERT_EQ(exact_of(difference), a.exact - b.exact) << "trial " << trial;
    difference += b.wide;
    difference -= a.wide;
    ASSERT_TRUE(difference.is_zero()) << "trial " << trial;
    ASSERT_EQ(difference.bit_length(), 0) << "trial " << trial;
  }
}

TEST(WideInteger, ShiftsMultipliesAndSquares) {
  std::mt19937_64 random(2);
  for (int trial = 0; trial < 3000; ++trial) {
    const Twin a = random_twin(256, random);
    const std::uint64_t factor = random() >> (random() % 64);
    const int shift = static_cast<int>(random() % 190);
    WideInteger product = a.wide;
    product *= factor;
    product <<= shift;
    const Exact exact_factor = Exact::scaled(static_cast<std::int64_t>(factor >> 1), 1) +
                               Exact::scaled(static_cast<std::int64_t>(factor & 1), 0);
    ASSERT_EQ(exact_of(product), a.exact * exact_factor * Exact::scaled(1, shift)) << "trial " << trial;
    ASSERT_EQ(exact_of(a.wide.squared()), a.exact * a.exact) << "trial " << trial;
  }
}

TEST(WideInteger, SquaresALongRowOfOnes) {
  WideInteger all_ones(1);
  all_ones <<= 255;
  all_ones -= WideInteger(1);
  const Exact exact = Exact::scaled(1, 255) - Exact(1.0);
  ASSERT_EQ(all_ones.bit_length(), 255);
  EXPECT_EQ(exact_of(all_ones.squared()), exact * exact);
  EXPECT_EQ(all_ones.squared().bit_length(), 510);
}

/// hi is the nearest double, lo the nearest double of the rest: normal, subnormal, overflowing.
TEST(WideInteger, RoundsToTwoDoubles) {
  std::mt19937_64 random(3);
  for (int trial = 0; trial < 40000; ++trial) {
    const Twin a = random_twin(kBits - 2, random);
    const int scale = static_cast<int>(random() % 2600) - 1700;
    const Exact value = a.exact * Exact::scaled(1, scale);
    const DoubleDouble got = a.wide.to_double_double(scale);
    ASSERT_EQ(got.hi, value.to_double()) << "trial " << trial << " scale " << scale;
    const double lo = std::isinf(got.hi) ? 0.0 : (value - Exact(got.hi)).to_double();
    ASSERT_EQ(got.lo, lo) << "trial " << trial << " scale " << scale;
  }
}

TEST(WideInteger, RoundsTiesToEven) {
  for (const std::int64_t odd : {0, 1}) {
    for (const int sign : {1, -1}) {
      for (const int crumb : {-1, 0, 1}) {
        WideInteger value(sign * ((std::int64_t{1} << 53) + 2 * odd + 1));  // between two doubles, with room below
        value <<= 400;
        value += WideInteger(crumb);
        const Exact exact =
            Exact::scaled(sign * ((std::int64_t{1} << 53) + 2 * odd + 1), 400) + Exact::scaled(crumb, 0);
        EXPECT_EQ(value.to_double_double(0).hi, exact.to_double());
        EXPECT_EQ(value.to_double_double(-1400).hi, (exact * Exact::scaled(1, -1400)).to_double());
      }
    }
  }
}

}  // namespace
}  // namespace syncbn::testing
