// SPDX-License-Identifier: MIT
#include "statistics/moments.hpp"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "support/exact.hpp"

namespace syncbn::testing {
namespace {

using statistics::ConstMomentsView;
using statistics::MomentsView;

struct Moments {
  Index count = 0;
  double mean = 0.0;
  double m2 = 0.0;
};

Moments merged(Moments a, const Moments& b) {
  statistics::merge_moments(1, a.count, MomentsView{&a.mean, &a.m2}, b.count, ConstMomentsView{&b.mean, &b.m2});
  a.count += b.count;
  return a;
}

Moments moments_of(const std::vector<double>& values) {
  Moments moments;
  for (const double x : values) moments = merged(moments, {1, x, 0.0});
  return moments;
}

/// Mean and M2 in long double, two passes.
Moments reference(const std::vector<double>& values) {
  long double sum = 0;
  for (const double x : values) sum += x;
  const long double mean = sum / static_cast<long double>(values.size());
  long double m2 = 0;
  for (const double x : values) m2 += (x - mean) * (x - mean);
  return {static_cast<Index>(values.size()), static_cast<double>(mean), static_cast<double>(m2)};
}

/// Each merge rounds a handful of times: the mean by at most 3 * 2^-53 of the largest value; M2, a sum of terms of one
/// sign, by 6 * 2^-53 of itself and, through the error of delta, by 2 |delta| n_a*n_b/n * 3 * 2^-53 * largest.
TEST(Moments, MergedOneByOneAreThoseOfTheWhole) {
  std::mt19937_64 random(1);
  std::normal_distribution<double> noise(5.0, 1.0);
  for (const std::size_t count : {1, 2, 3, 10, 1000}) {
    std::vector<double> values(count);
    for (double& x : values) x = noise(random);
    const Moments got = moments_of(values);
    const Moments wanted = reference(values);
    const double steps = static_cast<double>(count) * 0x1p-53;
    EXPECT_EQ(got.count, wanted.count);
    EXPECT_NEAR(got.mean, wanted.mean, 3 * steps * 10.0);
    EXPECT_NEAR(got.m2, wanted.m2, 6 * steps * wanted.m2 + 6 * steps * 10.0 * std::sqrt(wanted.m2 + 1.0));
  }
}

TEST(Moments, MergeIsSymmetricToTheBit) {
  std::mt19937_64 random(2);
  for (int trial = 0; trial < 20000; ++trial) {
    const auto number = [&] { return std::ldexp(static_cast<double>(static_cast<std::int64_t>(random())), -60); };
    Moments a{1 + static_cast<Index>(random() % 5), number(), std::abs(number())};
    Moments b{1 + static_cast<Index>(random() % 5), trial % 7 == 0 ? a.mean : number(), std::abs(number())};
    if (trial % 11 == 0) {
      a.mean = 0.0;
      b.mean = -0.0;
    }
    const Moments ab = merged(a, b);
    const Moments ba = merged(b, a);
    ASSERT_EQ(ab.mean, ba.mean) << "trial " << trial;
    ASSERT_EQ(std::signbit(ab.mean), std::signbit(ba.mean)) << "trial " << trial;
    ASSERT_EQ(ab.m2, ba.m2) << "trial " << trial;
    ASSERT_GE(ab.m2, 0.0);
    if (a.mean == b.mean) {
      ASSERT_EQ(ab.mean, a.mean) << "equal means give exactly that mean";
      ASSERT_EQ(ab.m2, a.m2 + b.m2);
    }
  }
}

TEST(Moments, OfNothingAreNeutral) {
  const Moments a{3, 2.5, 7.0};
  const Moments nan{0, std::nan(""), std::nan("")};  // whatever stands in memory
  EXPECT_EQ(merged(a, nan).mean, 2.5);
  EXPECT_EQ(merged(a, nan).m2, 7.0);
  EXPECT_EQ(merged(nan, a).mean, 2.5);
  EXPECT_EQ(merged(nan, a).m2, 7.0);
  EXPECT_EQ(merged(nan, a).count, 3);
}

TEST(Moments, FromDifferencesAreClampedAtZeroAndKeepNan) {
  std::vector<double> first = {10.0, 1.0, 0.0};
  const std::vector<double> d = {8.0, 3.0, std::nan("")};
  std::vector<double> dd = {24.0, std::nextafter(9.0 / 4.0, 0.0), std::nan("")};
  statistics::moments_from_differences(3, 4, first.data(), d.data(), dd.data());
  EXPECT_EQ(first[0], 12.0);
  EXPECT_EQ(dd[0], 8.0);
  EXPECT_EQ(dd[1], 0.0) << "rounding must not make it negative";
  EXPECT_TRUE(std::isnan(first[2]));
  EXPECT_TRUE(std::isnan(dd[2]));
}

TEST(Moments, FinishAndInvstd) {
  const double mean_in = 3.0;
  const double m2 = 10.0;
  double mean = 0.0;
  double var = 0.0;
  statistics::finish_moments(1, 4, {&mean_in, &m2}, &mean, &var);
  EXPECT_EQ(mean, 3.0);
  EXPECT_EQ(var, 2.5);
  const double vars[3] = {0.0, 15.0, std::nan("")};
  double invstd[3];
  statistics::invstd_of(3, vars, 1.0, invstd);
  EXPECT_EQ(invstd[0], 1.0);
  EXPECT_EQ(invstd[1], 0.25);
  EXPECT_TRUE(std::isnan(invstd[2]));
  statistics::invstd_of(1, vars, 0.0, invstd);
  EXPECT_EQ(invstd[0], 0.0) << "a constant channel without eps";
}

}  // namespace
}  // namespace syncbn::testing
