// SPDX-License-Identifier: MIT
// The plain kernels against their formulas, in long double or exactly. u = 2^-53 is the rounding of one operation.
#include <algorithm>
#include <cmath>

#include "kernel_inputs.hpp"
#include "statistics/bins_block.hpp"
#include "statistics/exact_moments.hpp"
#include "support/exact.hpp"

namespace syncbn::testing {
namespace {

using kernels::BlockShape;
using kernels::KernelTable;
using kernels::Mean;
using kernels::PlaneSums;
using Long = long double;

constexpr Long kU = 0x1p-53L;

template <class T>
class PlainKernels : public ::testing::Test {
 protected:
  const KernelTable& table() const { return *kernels::table_for(DataTypeOf<T>::value, kernels::Isa::scalar); }
};
TYPED_TEST_SUITE(PlainKernels, WideTypes);

/// Where element (n, c, s) of a block stands.
Index offset_of(BlockShape shape, Index n, Index c, Index s) {
  const Index channels = shape.sample.channels;
  const Index positions = shape.sample.positions;
  const bool channels_last = shape.sample.channels_last;
  return channels_last ? (n * positions + s) * channels + c : (n * channels + c) * positions + s;
}

/// Half the distance between numbers of type T at `value`: the last rounding.
template <class T>
Long half_ulp(Long value) {
  const Long least = std::numeric_limits<T>::denorm_min();
  const Long spacing = std::numeric_limits<T>::epsilon() * std::abs(value);
  return std::max(least, spacing) / 2;
}

/// A sum of S terms t_i in double, each with r roundings of its own: (S + r) u sum|t_i| (1 + tiny).
Long sum_bound(Index terms, int roundings, Long sum_of_magnitudes) {
  return 1.01L * static_cast<Long>(terms + roundings) * kU * sum_of_magnitudes;
}

TYPED_TEST(PlainKernels, PlaneSumsAreThoseAboutTheFirstValue) {
  Random random(1);
  for (const Kind kind : {Kind::ordinary, Kind::large_mean}) {
    for_each_shape(1, [&](BlockShape shape) {
      const Index channels = shape.sample.channels;
      Guarded<TypeParam> x(element_count(shape));
      fill(x, kind, random);
      std::vector<double> out(static_cast<std::size_t>(3 * channels));
      this->table().plane_sums(x.data(), shape.sample, {out.data(), out.data() + channels, out.data() + 2 * channels});
      for (Index c = 0; c < channels; ++c) {
        const Long first = x[offset_of(shape, 0, c, 0)];
        Long d_sum = 0, d_magnitudes = 0, dd_sum = 0;
        for (Index s = 0; s < shape.sample.positions; ++s) {
          const Long d = x[offset_of(shape, 0, c, s)] - first;
          d_sum += d;
          d_magnitudes += std::abs(d);
          dd_sum += d * d;
        }
        const auto* got = out.data() + c;
        ASSERT_EQ(got[0], static_cast<double>(first));
        ASSERT_LE(std::abs(got[channels] - d_sum), sum_bound(shape.sample.positions, 1, d_magnitudes));
        ASSERT_LE(std::abs(got[2 * channels] - dd_sum), sum_bound(shape.sample.positions, 3, dd_sum));
      }
    });
  }
}

TYPED_TEST(PlainKernels, GradientSumsAreThoseOfTheFormula) {
  Random random(2);
  for_each_shape(1, [&](BlockShape shape) {
    const Index channels = shape.sample.channels;
    Guarded<TypeParam> x(element_count(shape));
    Guarded<TypeParam> dy(element_count(shape));
    Guarded<double> mean(2 * channels);
    fill(x, Kind::large_mean, random);
    fill(dy, Kind::ordinary, random);
    for (Index c = 0; c < channels; ++c) {
      mean[c] = 1e6 + 0.1 * static_cast<double>(c);
      mean[channels + c] = 1e-11 * static_cast<double>(c);
    }
    std::vector<double> got(static_cast<std::size_t>(2 * channels));
    this->table().gradient_sums(x.data(), dy.data(), shape.sample, Mean{mean.data(), mean.data() + channels},
                                got.data(), got.data() + channels);
    for (Index c = 0; c < channels; ++c) {
      Long sum = 0, magnitudes = 0, product_sum = 0, product_magnitudes = 0;
      for (Index s = 0; s < shape.sample.positions; ++s) {
        const Long g = dy[offset_of(shape, 0, c, s)];
        const Long lo = std::is_same_v<TypeParam, double> ? mean[channels + c] : 0.0;  // f32 kernels use hi alone
        const Long xmu = (x[offset_of(shape, 0, c, s)] - static_cast<Long>(mean[c])) - lo;
        sum += g;
        magnitudes += std::abs(g);
        product_sum += g * xmu;
        product_magnitudes += std::abs(g) * (std::abs(xmu) + 2 * std::abs(lo));
      }
      ASSERT_LE(std::abs(got[static_cast<std::size_t>(c)] - sum), sum_bound(shape.sample.positions, 0, magnitudes));
      ASSERT_LE(std::abs(got[static_cast<std::size_t>(channels + c)] - product_sum),
                sum_bound(shape.sample.positions, 3, product_magnitudes));
    }
  });
}

TYPED_TEST(PlainKernels, NormalizeIsWithinOneRoundingOfItsFormula) {
  Random random(3);
  for_each_shape(2, [&](BlockShape shape) {
    const Index channels = shape.sample.channels;
    Guarded<TypeParam> x(element_count(shape));
    Guarded<TypeParam> y(element_count(shape));
    Guarded<double> k(4 * channels);
    fill(x, Kind::large_mean, random);
    fill(k, Kind::ordinary, random);
    for (Index c = 0; c < channels; ++c) {
      k[c] += 1e6;
      k[channels + c] *= 1e-11;
    }
    const double* rows[4] = {k.data(), k.data() + channels, k.data() + 2 * channels, k.data() + 3 * channels};
    this->table().normalize(x.data(), y.data(), shape, {{rows[0], rows[1]}, rows[2], rows[3]}, {});
    for (Index n = 0; n < shape.samples; ++n) {
      for (Index c = 0; c < channels; ++c) {
        for (Index s = 0; s < shape.sample.positions; ++s) {
          const Index i = offset_of(shape, n, c, s);
          const Long lo = std::is_same_v<TypeParam, double> ? rows[1][c] : 0.0;
          const Long xmu = (x[i] - static_cast<Long>(rows[0][c])) - lo;
          const Long wanted = xmu * rows[2][c] + rows[3][c];
          // x - hi, - lo, and that of the result itself: 3 roundings.
          const Long arithmetic =
              kU * (2 * (std::abs(xmu) + std::abs(lo)) * std::abs(static_cast<Long>(rows[2][c])) + std::abs(wanted));
          ASSERT_LE(std::abs(y[i] - wanted), 1.01L * (arithmetic + half_ulp<TypeParam>(wanted)));
        }
      }
    }
  });
}

TYPED_TEST(PlainKernels, InputGradientAndScaleAreWithinRoundingOfTheirFormulas) {
  Random random(4);
  for_each_shape(2, [&](BlockShape shape) {
    const Index channels = shape.sample.channels;
    Guarded<TypeParam> x(element_count(shape));
    Guarded<TypeParam> dy(element_count(shape));
    Guarded<TypeParam> dx(element_count(shape));
    Guarded<TypeParam> scaled(element_count(shape));
    Guarded<double> k(6 * channels);
    fill(x, Kind::ordinary, random);
    fill(dy, Kind::ordinary, random);
    fill(k, Kind::ordinary, random);
    const auto row = [&](Index r) { return k.data() + r * channels; };
    for (Index c = 0; c < channels; ++c) k[channels + c] *= 1e-17;
    this->table().input_gradient(x.data(), dy.data(), dx.data(), shape,
                                 {{row(0), row(1)}, row(2), row(3), row(4), row(5)});
    this->table().scale(dy.data(), scaled.data(), shape, row(2));
    for (Index n = 0; n < shape.samples; ++n) {
      for (Index c = 0; c < channels; ++c) {
        for (Index s = 0; s < shape.sample.positions; ++s) {
          const Index i = offset_of(shape, n, c, s);
          const Long lo = std::is_same_v<TypeParam, double> ? row(1)[c] : 0.0;
          const Long xmu = (x[i] - static_cast<Long>(row(0)[c])) - lo;
          const Long factor = row(2)[c];
          // f64 has invstd in row 5 and works from the inside out.
          const Long invstd = std::is_same_v<TypeParam, double> ? row(5)[c] : 1.0;
          const Long outer = std::is_same_v<TypeParam, double> ? -factor : 1.0L;
          const Long pull = xmu * invstd * row(3)[c] * outer;
          const Long offset = row(4)[c] * outer;
          const Long wanted = dy[i] * factor + (pull + offset);
          // xmu twice, and times invstd; at most three sums and products behind that: at most 6 a term.
          const Long magnitude =
              std::abs(dy[i] * factor) + std::abs(offset) + std::abs(pull) + std::abs(lo * invstd * row(3)[c] * outer);
          ASSERT_LE(std::abs(dx[i] - wanted), 1.01L * (6 * kU * magnitude + half_ulp<TypeParam>(wanted)));
          const Long product = dy[i] * factor;
          ASSERT_LE(std::abs(scaled[i] - product), 1.01L * (kU * std::abs(product) + half_ulp<TypeParam>(product)));
        }
      }
    }
  });
}

/// Rows of pairs add up to S*first + d and S*first^2 + 2*first*d + dd: for f64 exactly; for f32 in two doubles, whose
/// roundings (of the low one: 2 + 3 + 3 + 4 + 4 of 2^-106 at most) stay below 2^-102 of the terms' magnitudes.
TYPED_TEST(PlainKernels, MomentRowsAddUpToTheSums) {
  Random random(5);
  constexpr bool kIsExact = std::is_same_v<TypeParam, double>;
  constexpr Index kRows = kernels::moment_rows_for(DataTypeOf<TypeParam>::value);
  for (int trial = 0; trial < 3000; ++trial) {
    const auto positions = static_cast<Index>(2 + random() % 100000);
    std::normal_distribution<double> noise(trial % 3 == 0 ? 1e6 : 0.0, 1.0);
    double first = static_cast<double>(static_cast<TypeParam>(noise(random)));
    double d = static_cast<double>(positions) * noise(random) * 0.01;
    double dd = static_cast<double>(positions) * (1.0 + std::abs(noise(random)));
    double a[7], b[7];
    this->table().moment_rows({&first, &d, &dd}, 1, positions, a, b, 1);
    Exact sum, squares;
    for (Index r = 0; r < kRows; ++r) {
      sum += Exact(a[r]);
      squares += Exact(b[r]);
    }
    const Exact s = Exact::scaled(positions, 0);
    const Exact square = s * Exact(first) * Exact(first);
    const Exact cross = Exact(2.0) * Exact(first) * Exact(d);
    const Exact error = (squares - (square + cross + Exact(dd))).magnitude();
    ASSERT_EQ(sum, s * Exact(first) + Exact(d));
    if (kIsExact) {
      ASSERT_TRUE(error.is_zero());
    } else {
      ASSERT_LE(error, Exact(0x1p-102) * (square + cross.magnitude() + Exact(dd)));
    }
  }
}

/// Through planes, rows of pairs and bins: a constant channel has variance 0 and its constant for a mean.
TYPED_TEST(PlainKernels, ConstantPlanesHaveVarianceZero) {
  Random random(6);
  constexpr int kBins = kernels::bins_for(DataTypeOf<TypeParam>::value);
  constexpr Index kRows = kernels::moment_rows_for(DataTypeOf<TypeParam>::value);
  for (int trial = 0; trial < 300; ++trial) {
    const auto constant = std::ldexp(static_cast<TypeParam>(random() >> 11), static_cast<int>(random() % 100) - 100) *
                          (trial % 2 ? 1 : -1);
    std::vector<std::uint64_t> words(statistics::block_bytes(2, kBins) / 8);
    auto* block = reinterpret_cast<std::byte*>(words.data());
    statistics::start_block(block, 2, kBins);
    Index count = 0;
    for (auto samples = 1 + random() % 20; samples > 0; --samples) {
      const auto positions = static_cast<Index>(2 + random() % 300);
      const std::vector<TypeParam> plane(static_cast<std::size_t>(positions), constant);
      double sums[3], a[kRows], b[kRows];
      this->table().plane_sums(plane.data(), {1, positions, false}, {&sums[0], &sums[1], &sums[2]});
      this->table().moment_rows({&sums[0], &sums[1], &sums[2]}, 1, positions, a, b, 1);
      for (Index r = 0; r < kRows; ++r) {
        statistics::deposit(block, 0, a[r], 0);
        statistics::deposit(block, 1, b[r], 0);
      }
      count += positions;
    }
    const auto got = statistics::mean_and_variance(statistics::view_of(block), 0, 1, count);
    ASSERT_EQ(got.var, 0.0) << constant;
    ASSERT_EQ(got.mean.hi, static_cast<double>(constant));
    ASSERT_EQ(got.mean.lo, 0.0) << constant;
  }
}

TYPED_TEST(PlainKernels, ExpandedSquaresAreExact) {
  Random random(7);
  constexpr Index kRows = kernels::value_rows_for(DataTypeOf<TypeParam>::value);
  for (int trial = 0; trial < 2000; ++trial) {
    const auto x =
        std::ldexp(static_cast<TypeParam>(static_cast<std::int64_t>(random())), static_cast<int>(random() % 100) - 110);
    double a[2] = {}, b[2] = {};
    this->table().expand_values(&x, 1, 1, 0, 1, a, b);
    Exact sum, square;
    for (Index r = 0; r < kRows; ++r) {
      sum += Exact(a[r]);
      square += Exact(b[r]);
    }
    ASSERT_EQ(sum, Exact(static_cast<double>(x)));
    ASSERT_EQ(square, Exact(static_cast<double>(x)) * Exact(static_cast<double>(x)));
  }
}

}  // namespace
}  // namespace syncbn::testing
