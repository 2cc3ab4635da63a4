// SPDX-License-Identifier: MIT
// Mean and variance of one channel against exact arithmetic.
#include "statistics/exact_moments.hpp"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "accumulator.hpp"
#include "statistics/bins_block.hpp"

namespace syncbn::testing {
namespace {

using statistics::BinsView;
using statistics::DoubleDouble;
using statistics::MeanAndVariance;

/// Accumulators 0 and 1: sum(x) and sum(x^2), deposited as the layer does for 2-D tensors.
class Channel {
 public:
  explicit Channel(int bins) : words_(statistics::block_bytes(2, bins) / 8) {
    statistics::start_block(block(), 2, bins);
  }
  void add(float x) {
    const double wide = static_cast<double>(x);
    statistics::deposit(sums(), 0, wide);
    statistics::deposit(sums(), 1, wide * wide);  // exact: 48 bits
    ++count_;
  }
  void add(double x) {
    const DoubleDouble square = statistics::two_product(x, x);
    statistics::deposit(sums(), 0, x);
    statistics::deposit(sums(), 1, square.hi);
    statistics::deposit(sums(), 1, square.lo);
    ++count_;
  }
  void double_up() {
    Channel copy = *this;
    statistics::merge_bins(sums(), copy.sums());
    count_ *= 2;
  }
  Index count() const { return count_; }
  MeanAndVariance moments() { return statistics::mean_and_variance(sums(), 0, 1, count_); }
  BinsView sums() { return statistics::view_of(block()); }
  Exact content(Index i) {
    Exact total;
    const BinsView view = sums();
    for (int k = 0; k < view.bins && view.top[i] != statistics::kNoWindow; ++k) {
      total += Exact::scaled(view.bin[k * view.size + i], unit_exponent(view.top[i] - k));
    }
    return total;
  }

 private:
  std::byte* block() { return reinterpret_cast<std::byte*>(words_.data()); }
  std::vector<std::uint64_t> words_;
  Index count_ = 0;
};

template <class T>
constexpr int kBinsFor = sizeof(T) == 8 ? 5 : 3;

template <class T>
Channel channel_of(const std::vector<T>& values) {
  Channel channel(kBinsFor<T>);
  for (const T x : values) channel.add(x);
  return channel;
}

/// |got - wanted/divisor| <= relative * |wanted/divisor|, without a division.
::testing::AssertionResult is_within(const Exact& got, const Exact& wanted, const Exact& divisor, double relative) {
  if ((got * divisor - wanted).magnitude() <= Exact(relative) * wanted.magnitude())
    return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "got " << got << ", wanted " << wanted << " / " << divisor;
}

/// Against what the bins hold. Mean: rounding the sum to a pair costs 2^-106, the division 3.5 * 2^-106.
/// Variance, double-double branch: mean^2 is good to (2 * 4.5 + 5) * 2^-106, Q/M to 4.5 * 2^-106, the difference to
/// 3 * 2^-106: less than 2^-101 * Q/M, and the branch is taken only for var > 2^-40 * Q/M: 2^-61. Integer branch: 8 *
/// 2^-106. Then one rounding to double, 2^-53. So 2^-52 covers both.
void check_against_content(Channel& channel) {
  const MeanAndVariance got = channel.moments();
  const Exact m = Exact::scaled(channel.count(), 0);
  const Exact sum = channel.content(0);
  const Exact numerator = m * channel.content(1) - sum * sum;
  ASSERT_TRUE(is_within(Exact(got.mean.hi) + Exact(got.mean.lo), sum, m, 4.5 * 0x1p-106));
  ASSERT_GE(got.var, 0.0);
  ASSERT_FALSE(std::signbit(got.var));
  if (numerator <= Exact(0.0)) {
    ASSERT_EQ(got.var, 0.0) << "rounding in the deposits made " << numerator;
  } else {
    ASSERT_TRUE(is_within(Exact(got.var), numerator, m * m, 0x1p-52));
  }
}

/// f32 values within a factor 2^12 of each other lose nothing in the bins: so the same against the values themselves.
template <class T>
void expect_content_is_exact(Channel& channel, const std::vector<T>& values) {
  Exact sum;
  Exact squares;
  for (const T x : values) {
    sum += Exact(static_cast<double>(x));
    squares += Exact(static_cast<double>(x)) * Exact(static_cast<double>(x));
  }
  ASSERT_EQ(channel.content(0), sum);
  ASSERT_EQ(channel.content(1), squares);
}

std::vector<float> gaussian(std::size_t count, double ratio, double scale, unsigned seed) {
  Random random(seed);
  std::normal_distribution<double> noise(ratio, 1.0);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(scale * noise(random));
  return values;
}

TEST(ExactMoments, OfFloatsAtAllRatiosAndScales) {
  unsigned seed = 0;
  for (const double ratio : {0.0, -1.0, 30.0, 1e3, -1e4, 1e5, 1e6, 3e6}) {
    for (const double scale : {1e-30, 3e-21, 1e-10, 1e-3, 1.0, 20.0, 1e6, 1e13, 1e30}) {
      for (const std::size_t count : {1, 2, 3, 17, 1000}) {
        const std::vector<float> values = gaussian(count, ratio, scale, ++seed);
        Channel channel = channel_of(values);
        ASSERT_NO_FATAL_FAILURE(check_against_content(channel))
            << "ratio " << ratio << " scale " << scale << " count " << count;
        if (std::abs(ratio) >= 30.0) {
          ASSERT_NO_FATAL_FAILURE(expect_content_is_exact(channel, values));
        }
      }
    }
  }
}

TEST(ExactMoments, OfManyFloats) {
  for (const double ratio : {0.0, 1e3, 1e6}) {
    const std::vector<float> values = gaussian(100000, ratio, 1e-3, 7);
    Channel channel = channel_of(values);
    ASSERT_NO_FATAL_FAILURE(check_against_content(channel)) << "ratio " << ratio;
    if (ratio > 0.0) {
      ASSERT_NO_FATAL_FAILURE(expect_content_is_exact(channel, values));
    }
  }
}

TEST(ExactMoments, OfDoublesAtAllRatiosAndScales) {
  unsigned seed = 0;
  for (const double ratio : {0.0, 1.0, 1e6, -1e9, 1e12, 1e15}) {
    for (const double scale : {1e-120, 1e-30, 1.0, 7e5, 1e30, 1e120}) {
      for (const std::size_t count : {1, 2, 17, 300}) {
        Random random(++seed);
        std::normal_distribution<double> noise(ratio, 1.0);
        std::vector<double> values(count);
        for (double& value : values) value = scale * noise(random);
        Channel channel = channel_of(values);
        ASSERT_NO_FATAL_FAILURE(check_against_content(channel))
            << "ratio " << ratio << " scale " << scale << " count " << count;
        if (std::abs(ratio) >= 1e6) {
          ASSERT_NO_FATAL_FAILURE(expect_content_is_exact(channel, values));
        }
      }
    }
  }
}

/// The highest mean/sigma there is: two neighbours, whose variance is (ulp/2)^2 exactly. At every exponent, because
/// where the windows of sum and squares stand to each other changes with it.
template <class T>
void check_neighbours(int least_exponent, int greatest_exponent) {
  for (int e = least_exponent; e <= greatest_exponent; ++e) {
    for (const T base : {std::ldexp(T(1), e), std::ldexp(T(1.75), e)}) {
      for (const T sign : {T(1), T(-1)}) {
        const T a = sign * base;
        const T b = sign * std::nextafter(base, std::numeric_limits<T>::infinity());
        Channel channel = channel_of(std::vector<T>{a, b});
        const double half_ulp = 0.5 * (static_cast<double>(b) - static_cast<double>(a));
        ASSERT_EQ(channel.moments().var, half_ulp * half_ulp) << "x = " << a << " and " << b;
        for (int doubling = 0; doubling < 20; ++doubling) channel.double_up();
        ASSERT_EQ(channel.moments().var, half_ulp * half_ulp) << "x = " << a << " and " << b << ", 2^20 times";
      }
    }
  }
}
TEST(ExactMoments, OfNeighbouringFloats) { check_neighbours<float>(-126, 126); }
// x^2 must not overflow, nor its lower half underflow: 2e + 1 < 1024, 2e - 106 > -1022, (ulp/2)^2 likewise.
TEST(ExactMoments, OfNeighbouringDoubles) { check_neighbours<double>(-455, 510); }

/// A constant channel has variance 0, whatever the constant and the count.
template <class T>
void check_constants(const std::vector<T>& constants) {
  for (const T constant : constants) {
    Channel channel(kBinsFor<T>);
    const auto check = [&] {
      const MeanAndVariance got = channel.moments();
      ASSERT_EQ(got.var, 0.0) << constant << " " << channel.count() << " times";
      ASSERT_EQ(got.mean.hi, static_cast<double>(constant)) << channel.count() << " times";
      ASSERT_EQ(got.mean.lo, 0.0) << constant << " " << channel.count() << " times";
    };
    for (int n = 0; n < 300; ++n) {
      channel.add(constant);
      ASSERT_NO_FATAL_FAILURE(check());
    }
    while (channel.count() < 100000 - 1) {
      channel.double_up();
      channel.add(constant);
      ASSERT_NO_FATAL_FAILURE(check());
    }
  }
}
TEST(ExactMoments, OfConstantFloats) {
  using Float = std::numeric_limits<float>;
  std::vector<float> constants = {
      0.0f, -0.0f, 1.0f, 0.1f, -1e-30f, 16777215.0f, Float::max(), -Float::min(), Float::denorm_min(), 1e-44f};
  Random random(1);
  while (constants.size() < 60) {
    constants.push_back(std::ldexp(static_cast<float>(random() >> 40), static_cast<int>(random() % 250) - 150));
  }
  check_constants(constants);
}
TEST(ExactMoments, OfConstantDoubles) {
  std::vector<double> constants = {0.0, -0.0, 0.1, -1.0 / 3.0, 1e150, -1e-140, 0x1.fffffffffffffp-1};
  Random random(2);
  while (constants.size() < 60) {
    constants.push_back(std::ldexp(static_cast<double>(random() >> 11), static_cast<int>(random() % 900) - 480));
  }
  check_constants(constants);
}

/// One outlier among constants: the exact variance is d^2 (M-1)/M^2.
TEST(ExactMoments, OfAConstantWithOneOutlier) {
  for (const float constant : {1.0f, 1048576.0f, 3e-20f, 7e25f}) {
    const float outlier = std::nextafter(constant, 0.0f);
    for (const std::size_t count : {2, 100, 4096, 50000}) {
      std::vector<float> values(count, constant);
      values[count / 3] = outlier;
      Channel channel = channel_of(values);
      ASSERT_NO_FATAL_FAILURE(expect_content_is_exact(channel, values));
      ASSERT_NO_FATAL_FAILURE(check_against_content(channel)) << constant << " " << count;
      ASSERT_GT(channel.moments().var, 0.0);
    }
  }
}

/// Values far apart, so that the bins do lose something: the variance stays at or above 0.
TEST(ExactMoments, NeverNegative) {
  Random random(3);
  for (int trial = 0; trial < 20000; ++trial) {
    Channel channel(trial % 2 == 0 ? 3 : 5);
    const int exponent = static_cast<int>(random() % 60) - 30;
    const auto value = [&] {
      const auto integer = static_cast<std::int64_t>(random()) >> (1 + random() % 62);
      return std::ldexp(static_cast<float>(integer), exponent - static_cast<int>(random() % 60));
    };
    const float common = value();
    for (int n = static_cast<int>(random() % 10); n >= 0; --n) {
      channel.add(random() % 2 != 0 ? common : value());
      if (trial % 2 != 0) channel.add(static_cast<double>(common) + 1e-12 * static_cast<double>(value()));
    }
    ASSERT_NO_FATAL_FAILURE(check_against_content(channel)) << "trial " << trial;
  }
}

TEST(ExactMoments, OfNonFiniteValuesAreNan) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    Channel channel = channel_of(std::vector<float>{1.0f, bad, 2.0f});
    EXPECT_TRUE(std::isnan(channel.moments().mean.hi));
    EXPECT_TRUE(std::isnan(channel.moments().var));
  }
}

}  // namespace
}  // namespace syncbn::testing
