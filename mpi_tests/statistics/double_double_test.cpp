// SPDX-License-Identifier: MIT
#include "statistics/double_double.hpp"

#include <cmath>
#include <random>

#include <gtest/gtest.h>

#include "support/exact.hpp"

namespace syncbn::testing {
namespace {

using statistics::DoubleDouble;

Exact exact_of(DoubleDouble a) { return Exact(a.hi) + Exact(a.lo); }

double random_double(std::mt19937_64& random) {
  return std::ldexp(static_cast<double>(static_cast<std::int64_t>(random()) >> (random() % 40)),
                    static_cast<int>(random() % 100) - 50);
}

DoubleDouble random_pair(std::mt19937_64& random) {
  const double hi = random_double(random);
  return statistics::two_sum(hi, std::ldexp(hi, -53) * std::ldexp(static_cast<double>(random() >> 11), -53));
}

/// |got - wanted| <= units * 2^-106 * |wanted|
::testing::AssertionResult is_within(const Exact& got, const Exact& wanted, double units) {
  if ((got - wanted).magnitude() <= Exact(units) * Exact(0x1p-106) * wanted.magnitude()) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << "got " << got << ", wanted " << wanted;
}

TEST(DoubleDouble, ErrorFreeTransformationsAreExact) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 20000; ++trial) {
    const double a = random_double(random);
    const double b = random_double(random);
    ASSERT_EQ(exact_of(statistics::two_sum(a, b)), Exact(a) + Exact(b));
    ASSERT_EQ(exact_of(statistics::two_product(a, b)), Exact(a) * Exact(b));
    ASSERT_EQ(exact_of(statistics::fast_two_sum(std::abs(a) < std::abs(b) ? b : a, std::abs(a) < std::abs(b) ? a : b)),
              Exact(a) + Exact(b));
  }
}

/// The bounds that double_double.hpp cites.
TEST(DoubleDouble, OperationsKeepTheirBounds) {
  std::mt19937_64 random(2);
  for (int trial = 0; trial < 20000; ++trial) {
    const DoubleDouble a = random_pair(random);
    const DoubleDouble b = random_pair(random);
    const double c = random_double(random);
    // Algorithm 6 is bounded by 3u^2/(1-4u): relative to the sum for any signs.
    ASSERT_TRUE(is_within(exact_of(a + b), exact_of(a) + exact_of(b), 3.0001)) << "trial " << trial;
    ASSERT_TRUE(is_within(exact_of(a - b), exact_of(a) - exact_of(b), 3.0001)) << "trial " << trial;
    ASSERT_TRUE(is_within(exact_of(a * c), exact_of(a) * Exact(c), 2.0)) << "trial " << trial;
    ASSERT_TRUE(is_within(exact_of(a * b), exact_of(a) * exact_of(b), 5.0)) << "trial " << trial;
    if (c != 0.0) {
      ASSERT_TRUE(is_within(exact_of(a / c) * Exact(c), exact_of(a), 3.5)) << "trial " << trial;
    }
  }
}

}  // namespace
}  // namespace syncbn::testing
