// SPDX-License-Identifier: MIT
// The order and the roundings of every pass, spelled out one operation at a time. volatile keeps the compiler from
// fusing or reordering them. The inputs are such that fused operations, or another order, give other bits; each test
// makes sure of that, so it fails if somebody lets the compiler contract a*b+c, or changes the pattern of lanes.
#include <array>
#include <cmath>
#include <utility>

#include "kernel_inputs.hpp"

namespace syncbn::testing {
namespace {

using kernels::KernelTable;
using kernels::kLanes;
using kernels::Mean;
using kernels::PlaneSums;

double add(double a, double b) {
  volatile double sum = a + b;
  return sum;
}
double subtract(double a, double b) {
  volatile double difference = a - b;
  return difference;
}
double multiply(double a, double b) {
  volatile double product = a * b;
  return product;
}

template <class T>
class Golden : public Twin<T> {
 protected:
  static double centred(T x, double hi, double lo) {
    const double difference = subtract(static_cast<double>(x), hi);
    return std::is_same_v<T, double> ? subtract(difference, lo) : difference;
  }
  template <class Body>
  void for_each_table(const Body& body) const {
    body(this->plain());
    if (!::testing::Test::HasFatalFailure()) this->for_each_isa(body);
  }
};
TYPED_TEST_SUITE(Golden, WideTypes);

/// Orders in which lanes can be summed.
enum class Tree { halves, neighbours, in_order };

double sum_of_lanes(std::array<double, kLanes> lane, Tree tree) {
  if (tree == Tree::in_order) {
    for (std::size_t l = 1; l < lane.size(); ++l) lane[0] = add(lane[0], lane[l]);
    return lane[0];
  }
  for (std::size_t step = 1; step < lane.size(); step *= 2) {
    if (tree == Tree::halves) {
      const std::size_t width = lane.size() / 2 / step;
      for (std::size_t l = 0; l < width; ++l) lane[l] = add(lane[l], lane[l + width]);
    } else {
      for (std::size_t l = 0; l < lane.size(); l += 2 * step) lane[l] = add(lane[l], lane[l + step]);
    }
  }
  return lane[0];
}

/// Sums factor_a[s] * factor_b[s] as kernels.hpp says: position s into lane s % 16, then halves.
double lane_sum(const std::vector<double>& factor_a, const std::vector<double>& factor_b, Tree tree, bool fused) {
  std::array<double, kLanes> lane{};
  for (std::size_t s = 0; s < factor_a.size(); ++s) {
    double& sum = lane[s % lane.size()];
    sum = fused ? std::fma(factor_a[s], factor_b[s], sum) : add(sum, multiply(factor_a[s], factor_b[s]));
  }
  return sum_of_lanes(lane, tree);
}

double sum_in_order(const std::vector<double>& factor_a, const std::vector<double>& factor_b, bool fused) {
  double sum = 0.0;
  for (std::size_t s = 0; s < factor_a.size(); ++s) {
    sum = fused ? std::fma(factor_a[s], factor_b[s], sum) : add(sum, multiply(factor_a[s], factor_b[s]));
  }
  return sum;
}

/// Values whose differences have many bits, in f32 too: magnitudes spread over 2^-20 to 1.
template <class T>
std::vector<T> spread_values(std::size_t count, Random& random) {
  std::vector<T> values(count);
  for (T& value : values) {
    value = static_cast<T>(
        std::ldexp(static_cast<double>(static_cast<std::int64_t>(random())), -63 - static_cast<int>(random() % 20)));
  }
  return values;
}

/// values and others in turn: two channels of a channels-last sample.
template <class T>
std::vector<T> in_turn(const std::vector<T>& values, T other) {
  std::vector<T> both;
  for (const T value : values) both.insert(both.end(), {value, other});
  return both;
}

constexpr int kTrials = 400;

/// Counts how often an alternative would have been noticed.
struct Teeth {
  int unfused = 0;
  int neighbours = 0;
  int in_order = 0;
};

TYPED_TEST(Golden, PlaneSums) {
  this->for_each_table([&](const KernelTable& table) {
    Random random(1);
    Teeth teeth;
    for (int trial = 0; trial < kTrials; ++trial) {
      const std::size_t positions = 17 + random() % 80;
      const std::vector<TypeParam> x = spread_values<TypeParam>(positions, random);
      const std::vector<double> ones(positions, 1.0);
      std::vector<double> d(positions);
      for (std::size_t s = 0; s < positions; ++s) d[s] = subtract(static_cast<double>(x[s]), static_cast<double>(x[0]));
      double first = 0.0, sum = 0.0, square_sum = 0.0;
      const PlaneSums out{&first, &sum, &square_sum};

      table.plane_sums(x.data(), {1, static_cast<Index>(positions), /*channels_last=*/false}, out);
      ASSERT_EQ(sum, lane_sum(d, ones, Tree::halves, true)) << "trial " << trial;
      ASSERT_EQ(square_sum, lane_sum(d, d, Tree::halves, true)) << "trial " << trial;
      teeth.unfused += square_sum != lane_sum(d, d, Tree::halves, false);
      teeth.neighbours += square_sum != lane_sum(d, d, Tree::neighbours, true);
      teeth.in_order += square_sum != lane_sum(d, d, Tree::in_order, true);

      table.plane_sums(in_turn(x, TypeParam(7)).data(), {1, static_cast<Index>(positions), /*channels_last=*/true, 2},
                       out);
      ASSERT_EQ(sum, sum_in_order(d, ones, true)) << "trial " << trial;
      ASSERT_EQ(square_sum, sum_in_order(d, d, true)) << "trial " << trial;
      teeth.unfused += square_sum != sum_in_order(d, d, false);

      // One channel alone is one plane in either layout.
      table.plane_sums(x.data(), {1, static_cast<Index>(positions), /*channels_last=*/true}, out);
      ASSERT_EQ(square_sum, lane_sum(d, d, Tree::halves, true)) << "trial " << trial;
    }
    EXPECT_GT(teeth.unfused, kTrials / 10);
    EXPECT_GT(teeth.neighbours, kTrials / 10);
    EXPECT_GT(teeth.in_order, kTrials / 10);
  });
}

TYPED_TEST(Golden, GradientSums) {
  this->for_each_table([&](const KernelTable& table) {
    Random random(2);
    Teeth teeth;
    for (int trial = 0; trial < kTrials; ++trial) {
      const std::size_t positions = 17 + random() % 80;
      const std::vector<TypeParam> x = spread_values<TypeParam>(positions, random);
      const std::vector<TypeParam> dy = spread_values<TypeParam>(positions, random);
      const double mean_hi = 0.1;
      const double mean_lo = 1e-18;
      std::vector<double> g(dy.begin(), dy.end());
      std::vector<double> xmu(positions);
      for (std::size_t s = 0; s < positions; ++s) xmu[s] = this->centred(x[s], mean_hi, mean_lo);
      double sum = 0.0, product_sum = 0.0;
      table.gradient_sums(x.data(), dy.data(), {1, static_cast<Index>(positions), false}, Mean{&mean_hi, &mean_lo},
                          &sum, &product_sum);
      ASSERT_EQ(sum, lane_sum(g, std::vector<double>(positions, 1.0), Tree::halves, true)) << "trial " << trial;
      ASSERT_EQ(product_sum, lane_sum(g, xmu, Tree::halves, true)) << "trial " << trial;
      teeth.unfused += product_sum != lane_sum(g, xmu, Tree::halves, false);
      teeth.neighbours += product_sum != lane_sum(g, xmu, Tree::neighbours, true);
      table.gradient_sums(in_turn(x, TypeParam(7)).data(), in_turn(dy, TypeParam(7)).data(),
                          {1, static_cast<Index>(positions), true, 2}, Mean{&mean_hi, &mean_lo}, &sum, &product_sum);
      ASSERT_EQ(product_sum, sum_in_order(g, xmu, true)) << "trial " << trial;
    }
    EXPECT_GT(teeth.unfused, kTrials / 10);
    EXPECT_GT(teeth.neighbours, kTrials / 10);
  });
}

/// shift is chosen to cancel the rounded product: fused, y is what the product lost; in two roundings it would be 0.
TYPED_TEST(Golden, Normalize) {
  constexpr Index kCount = 37;
  this->for_each_table([&](const KernelTable& table) {
    Random random(3);
    int noticed = 0;
    for (int trial = 0; trial < 20; ++trial) {
      const std::vector<TypeParam> x = spread_values<TypeParam>(kCount, random);
      std::vector<double> hi(kCount, 0.1), lo(kCount, 1e-18), scale(kCount), shift(kCount);
      std::vector<TypeParam> wanted(kCount);
      for (std::size_t c = 0; c < x.size(); ++c) {
        scale[c] = 1.0 / (1.0 + static_cast<double>(random() % 1000));
        shift[c] = -multiply(this->centred(x[c], hi[c], lo[c]), scale[c]);
        wanted[c] = static_cast<TypeParam>(std::fma(this->centred(x[c], hi[c], lo[c]), scale[c], shift[c]));
        noticed += wanted[c] != TypeParam(0);
      }
      std::vector<TypeParam> y(kCount, TypeParam(1));
      table.normalize(x.data(), y.data(), {1, {kCount, 1, true}}, {{hi.data(), lo.data()}, scale.data(), shift.data()},
                      {});
      ASSERT_EQ(y, wanted);
      for (std::size_t c = 0; c < x.size(); ++c) {  // one channel, kCount times the same place in a plane
        const std::vector<TypeParam> plane(kCount, x[c]);
        table.normalize(plane.data(), y.data(), {1, {1, kCount, false}}, {{&hi[c], &lo[c]}, &scale[c], &shift[c]}, {});
        for (const TypeParam value : y) ASSERT_EQ(value, wanted[c]);
      }
    }
    EXPECT_GT(noticed, 300);
  });
}

/// offset is chosen to cancel the rounded product with slope, dy is 0.
TYPED_TEST(Golden, InputGradient) {
  constexpr Index kCount = 37;
  constexpr bool kIsDouble = std::is_same_v<TypeParam, double>;
  this->for_each_table([&](const KernelTable& table) {
    Random random(4);
    int noticed = 0;
    for (int trial = 0; trial < 20; ++trial) {
      const std::vector<TypeParam> x = spread_values<TypeParam>(kCount, random);
      const std::vector<TypeParam> dy(kCount, TypeParam(0));
      const std::vector<double> hi(kCount, 0.1), lo(kCount, 1e-18), scale(kCount, 1.0);
      std::vector<double> invstd(kCount), slope(kCount), offset(kCount);
      std::vector<TypeParam> wanted(kCount);
      for (std::size_t c = 0; c < x.size(); ++c) {
        invstd[c] = 1.0 / (1.0 + static_cast<double>(random() % 1000));
        slope[c] = 1.0 / (3.0 + static_cast<double>(random() % 1000));
        const double xmu = this->centred(x[c], hi[c], lo[c]);
        const double factor = kIsDouble ? multiply(xmu, invstd[c]) : xmu;
        offset[c] = -multiply(factor, slope[c]);
        const double rest = std::fma(factor, slope[c], offset[c]);
        wanted[c] = static_cast<TypeParam>(kIsDouble ? -rest : rest);
        noticed += wanted[c] != TypeParam(0);
      }
      std::vector<TypeParam> dx(kCount, TypeParam(1));
      table.input_gradient(x.data(), dy.data(), dx.data(), {1, {kCount, 1, true}},
                           {{hi.data(), lo.data()}, scale.data(), slope.data(), offset.data(), invstd.data()});
      ASSERT_EQ(dx, wanted);
      for (std::size_t c = 0; c < x.size(); ++c) {
        const std::vector<TypeParam> plane(kCount, x[c]);
        table.input_gradient(plane.data(), dy.data(), dx.data(), {1, {1, kCount, false}},
                             {{&hi[c], &lo[c]}, &scale[c], &slope[c], &offset[c], &invstd[c]});
        for (const TypeParam value : dx) ASSERT_EQ(value, wanted[c]);
      }
    }
    EXPECT_GT(noticed, 300);
  });
}

std::pair<double, double> two_sum(double a, double b) {
  const double s = add(a, b);
  const double bb = subtract(s, a);
  return {s, add(subtract(a, subtract(s, bb)), subtract(b, bb))};
}
std::pair<double, double> two_product(double a, double b) {
  const double p = multiply(a, b);
  return {p, std::fma(a, b, -p)};
}

/// The pair for sum(x^2) of f32 planes, as one.hpp writes it down; fma only where its result is exact.
std::pair<double, double> square_pair(double first, double d, double dd, double positions, bool fused) {
  const auto [p, pe] = two_product(positions, first);
  const auto [square, ae] = two_product(p, first);
  const auto [cross, be] = two_product(add(first, first), d);
  const auto [both, abe] = two_sum(square, cross);
  const auto [q, qe] = two_sum(both, dd);
  const double low = fused ? std::fma(pe, first, ae) : add(ae, multiply(pe, first));
  const double rest = add(add(low, be), add(abe, qe));
  const double hi = add(q, rest);
  return {hi, subtract(rest, subtract(hi, q))};
}

TEST(GoldenMomentRows, OfFloats) {
  int noticed = 0;
  std::vector<kernels::Isa> isas = vector_isas();
  isas.push_back(kernels::Isa::scalar);
  for (const kernels::Isa isa : isas) {
    Random random(5);
    for (int trial = 0; trial < 200; ++trial) {
      constexpr Index kChannels = 11;
      constexpr Index kPositions = 12543;
      const std::vector<double> planes = spread_values<double>(3 * kChannels, random);  // so that S*first is not exact
      std::vector<double> numbers = planes;
      double a[2 * kChannels], b[2 * kChannels];
      kernels::table_for(DataType::f32, isa)
          ->moment_rows({numbers.data(), numbers.data() + kChannels, numbers.data() + 2 * kChannels}, kChannels,
                        kPositions, a, b, kChannels);
      for (std::size_t c = 0; c < kChannels; ++c) {
        const double first = planes[c];
        const double d = planes[kChannels + c];
        const double dd = planes[2 * kChannels + c];
        const auto [hi, lo] = square_pair(first, d, dd, kPositions, false);
        ASSERT_EQ(b[c], hi) << name_of(isa);
        ASSERT_EQ(b[kChannels + c], lo) << name_of(isa);
        noticed += square_pair(first, d, dd, kPositions, true) != std::pair(hi, lo);
      }
    }
  }
  EXPECT_GT(noticed, 200);
}

}  // namespace
}  // namespace syncbn::testing
