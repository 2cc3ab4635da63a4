// SPDX-License-Identifier: MIT
// The oracle against facts that need no oracle.
#include "support/exact.hpp"

#include <cmath>
#include <limits>
#include <random>

#include <gtest/gtest.h>

namespace syncbn::testing {
namespace {

__extension__ using Int128 = __int128;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kLeast = 0x1p-1074;
constexpr double kLargest = std::numeric_limits<double>::max();

TEST(Exact, HoldsEveryDouble) {
  for (const double value : {0.0, 1.0, -1.0, 0.1, -kLargest, kLeast, -kLeast, 0x1.fffffffffffffp-1023, 0x1p-1022}) {
    EXPECT_EQ(Exact(value).to_double(), value);
  }
  EXPECT_THROW(Exact{kInfinity}, std::invalid_argument);
}

TEST(Exact, AddsAndMultipliesAsIntegersDo) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 20000; ++trial) {
    const auto a = static_cast<std::int64_t>(random()) >> (random() % 63);
    const auto b = static_cast<std::int64_t>(random()) >> (random() % 63);
    const auto check = [&](const Exact& got, Int128 wanted) {
      const auto high = static_cast<std::int64_t>(wanted >> 62);
      const auto low = static_cast<std::int64_t>(wanted - (Int128{high} << 62));
      EXPECT_EQ(got - Exact::scaled(high, 62), Exact::scaled(low, 0)) << a << " and " << b;
    };
    check(Exact::scaled(a, 0) + Exact::scaled(b, 0), Int128{a} + b);
    check(Exact::scaled(a, 0) - Exact::scaled(b, 0), Int128{a} - b);
    check(Exact::scaled(a, 0) * Exact::scaled(b, 0), Int128{a} * b);
    EXPECT_EQ(compare(Exact::scaled(a, 0), Exact::scaled(b, 0)), (a > b) - (a < b));
  }
}

TEST(Exact, RoundsASumAsTheProcessorDoes) {
  std::mt19937_64 random(2);
  for (int trial = 0; trial < 20000; ++trial) {
    const double a = std::ldexp(static_cast<double>(random() >> 11), static_cast<int>(random() % 100) - 1100);
    const double b = -std::ldexp(static_cast<double>(random() >> 11), static_cast<int>(random() % 100) - 1100);
    EXPECT_EQ((Exact(a) + Exact(b)).to_double(), a + b) << a << " " << b;
    EXPECT_EQ(Exact(a * 0x1p950).to_float(), static_cast<float>(a * 0x1p950)) << a;
    EXPECT_EQ((Exact(a * 0x1p500) * Exact(b)).to_double(), a * 0x1p500 * b) << a << " " << b;
  }
}

TEST(Exact, RoundsTiesToEvenAndOverflowsAtHalfAnUlp) {
  EXPECT_EQ(Exact(2.5).rounded_to(0), Exact(2.0));
  EXPECT_EQ(Exact(-3.5).rounded_to(0), Exact(-4.0));
  EXPECT_EQ(Exact(0.5).rounded_to(0), Exact(0.0));
  EXPECT_EQ((Exact(0.5) + Exact(kLeast)).rounded_to(0), Exact(1.0));
  EXPECT_EQ(Exact(0.25).rounded_to(40), Exact(0.0));
  EXPECT_EQ(Exact(0x1p39).rounded_to(40), Exact(0.0));
  EXPECT_EQ(Exact(0x1.8p40).rounded_to(40), Exact(0x1p41));
  EXPECT_EQ((Exact(kLargest) + Exact(0x1p970)).to_double(), kInfinity);
  EXPECT_EQ((Exact(kLargest) + Exact(0x1p970) - Exact(kLeast)).to_double(), kLargest);
  EXPECT_EQ((Exact(kLeast) * Exact(0.5)).to_double(), 0.0);
  EXPECT_EQ((Exact(kLeast) * Exact(0.75)).to_double(), kLeast);
}

}  // namespace
}  // namespace syncbn::testing
