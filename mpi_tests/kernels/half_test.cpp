// SPDX-License-Identifier: MIT
// bfloat16 and float16: every pattern, and floats at and beside every rounding boundary, against arithmetic in double;
// and the kernels' own conversions against those of the types.
#include "syncbn/half.hpp"

#include <algorithm>
#include <cmath>

#include "kernel_inputs.hpp"
#include "kernels/one.hpp"

namespace syncbn::testing {
namespace {

/// A format as IEEE 754 describes it: 2^least <= |x| < 2^(most + 1), or a multiple of 2^(least - precision + 1).
struct Format {
  int precision, least_exponent, most_exponent;
};
template <class T>
constexpr Format kFormat = std::is_same_v<T, bfloat16> ? Format{8, -126, 127} : Format{11, -14, 15};

/// The value of a pattern; NaN for NaNs.
template <class T>
double value_of(unsigned pattern) {
  const auto [precision, least, most] = kFormat<T>;
  const unsigned fraction = pattern & ((1u << (precision - 1)) - 1);
  const int exponent = static_cast<int>((pattern & 0x7fffu) >> (precision - 1));
  const double sign = (pattern & 0x8000u) != 0 ? -1.0 : 1.0;
  if (exponent == most - least + 2) {
    return fraction != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  }
  const unsigned significand = exponent == 0 ? fraction : fraction | 1u << (precision - 1);
  return sign * std::ldexp(significand, (exponent == 0 ? 1 : exponent) - 1 + least - (precision - 1));
}

/// `value` rounded to nearest, ties to even, in double.
template <class T>
double rounded(double value) {
  const auto [precision, least, most] = kFormat<T>;
  if (value == 0.0 || !std::isfinite(value)) return value;
  const int unit = std::max(std::ilogb(value), least) - (precision - 1);
  const double result = std::ldexp(std::nearbyint(std::ldexp(value, -unit)), unit);
  return std::fabs(result) >= std::ldexp(1.0, most + 1) ? std::copysign(std::numeric_limits<double>::infinity(), value)
                                                        : result;
}

template <class T>
::testing::AssertionResult is_rounded(float value) {
  const T got(value);
  const double wanted = rounded<T>(static_cast<double>(value));
  const bool same_sign = std::signbit(value_of<T>(got.bits)) == std::signbit(value);
  if (std::isnan(wanted) ? is_nan(got) : same_sign && value_of<T>(got.bits) == wanted) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << std::hexfloat << "of " << value << ": got " << value_of<T>(got.bits)
                                       << ", wanted " << wanted;
}

constexpr unsigned kPatterns = 0x10000;

template <class T>
class Half : public Twin<T> {};
using HalfTypes = ::testing::Types<bfloat16, float16>;
TYPED_TEST_SUITE(Half, HalfTypes);

TYPED_TEST(Half, EveryPatternWidensExactlyAndComesBack) {
  for (unsigned pattern = 0; pattern < kPatterns; ++pattern) {
    const auto half = TypeParam::from_bits(static_cast<std::uint16_t>(pattern));
    const double wanted = value_of<TypeParam>(pattern);
    const float got = static_cast<float>(half);
    ASSERT_EQ(std::signbit(got), (pattern & 0x8000u) != 0) << "pattern " << pattern;
    if (std::isnan(wanted)) {
      ASSERT_TRUE(std::isnan(got)) << "pattern " << pattern;
      const unsigned quiet = pattern | 1u << (kFormat<TypeParam>.precision - 2);
      ASSERT_EQ(TypeParam(got).bits, quiet);
    } else {
      ASSERT_EQ(static_cast<double>(got), wanted) << "pattern " << pattern;
      ASSERT_EQ(static_cast<double>(half), wanted);
      ASSERT_EQ(TypeParam(got).bits, pattern);
    }
  }
}

/// Where rounding turns: halfway between neighbours, and the floats on both sides of that and of the numbers.
TYPED_TEST(Half, RoundsToNearestAroundEveryBoundary) {
  for (unsigned pattern = 0; pattern < 0x8000u; ++pattern) {
    const double value = value_of<TypeParam>(pattern);
    if (!std::isfinite(value)) continue;
    double next = value_of<TypeParam>(pattern + 1);
    if (std::isinf(next)) next = std::ldexp(1.0, kFormat<TypeParam>.most_exponent + 1);  // where infinity stands
    for (const double at : {value, value + (next - value) / 2}) {
      const auto middle = static_cast<float>(at);
      ASSERT_EQ(static_cast<double>(middle), at) << "halfway is no float";
      const float infinity = std::numeric_limits<float>::infinity();
      for (const float near : {std::nextafter(middle, -infinity), middle, std::nextafter(middle, infinity)}) {
        ASSERT_TRUE(is_rounded<TypeParam>(near));
        ASSERT_TRUE(is_rounded<TypeParam>(-near));
      }
    }
  }
}

TYPED_TEST(Half, RoundsFloatsOfEverySizeToNearest) {
  constexpr std::uint32_t kStep = 509;  // a prime: all low bits occur
  for (std::uint64_t bits = 0; bits <= 0xffffffffu; bits += kStep) {
    ASSERT_TRUE(is_rounded<TypeParam>(half::float_of(static_cast<std::uint32_t>(bits))));
  }
}

TYPED_TEST(Half, NaNsStayQuietNaNsWhateverTheirPayload) {
  Random random(1);
  for (int trial = 0; trial < 100000; ++trial) {
    const auto bits = static_cast<std::uint32_t>(random());
    for (const std::uint32_t payload : {1u, 0x3fffffu, 0x400000u, 0x7fffffu, bits & 0x7fffffu, 1u << trial % 23}) {
      if (payload == 0) continue;
      const TypeParam nan(half::float_of((bits & 0x80000000u) | 0x7f800000u | payload));
      ASSERT_TRUE(is_nan(nan));
      ASSERT_EQ((nan.bits & 0x8000u) != 0, (bits & 0x80000000u) != 0);
      ASSERT_NE(nan.bits & 1u << (kFormat<TypeParam>.precision - 2), 0u) << "not quiet";
    }
  }
}

/// scale is the pass whose result is nothing but read, one product, and write.
TYPED_TEST(Half, KernelsReadAndWriteWithTheSameConversions) {
  Guarded<TypeParam> all(kPatterns);
  for (unsigned pattern = 0; pattern < kPatterns; ++pattern) {
    all[pattern] = TypeParam::from_bits(static_cast<std::uint16_t>(pattern));
  }
  std::vector<double> factors = {1.0,     -1.0,  1 / 3.0, 0x1p-9, 0x1.8p-10, 0x1p-14, 0x1.00000001p-12,
                                 0x1p-24, 0x1p9, 1e300};
  for (int k = 1; k <= 16; ++k) factors.push_back(1.0 + std::ldexp(1.0, -k));
  factors.push_back(kernels::double_of(INT64_MAX));  // a NaN of ones only, which a rounding would carry out of
  const auto check = [&](const kernels::KernelTable& table) {
    for (const double factor : factors) {
      Guarded<TypeParam> out(kPatterns);
      Guarded<TypeParam> tails(kPatterns);
      table.scale(all.data(), out.data(), {1, {1, kPatterns, false}}, &factor);
      for (Index i = 0; i < kPatterns;) {  // 1, 2, ... 7 elements at a time, which are tails everywhere
        const Index count = std::min<Index>(1 + i % 7, kPatterns - i);
        table.scale(&all[i], &tails[i], {1, {1, count, false}}, &factor);
        i += count;
      }
      for (Index i = 0; i < kPatterns; ++i) {
        const auto x = static_cast<float>(all[i]);
        const TypeParam wanted(kernels::fits_float(factor) ? x * static_cast<float>(factor)
                                                           : static_cast<float>(static_cast<double>(x) * factor));
        ASSERT_TRUE(same_bits(out[i], wanted)) << all[i] << " * " << factor;
        ASSERT_TRUE(same_bits(tails[i], wanted)) << all[i] << " * " << factor << " in a tail";
      }
    }
  };
  check(this->plain());
  this->for_each_isa(check);
}

/// Coefficients that floats cannot hold are used in double, whatever the channels beside them; all tables, planes and
/// rows, and each channel alone, agree, and the results are those of the formula in double.
TYPED_TEST(Half, EveryChannelDecidesForItselfWhetherFloatWillDo) {
  const double scales[] = {1.5, 0x1p-140, 0.0, 0x1p-101, 0x1p-100, -0x1p100, 0x1p101, 1e200, -0.75};
  constexpr Index kChannels = 600;  // more than are rounded at once
  Random random(3);
  std::vector<double> mean, low(kChannels), scale, slope, offset, invstd;
  for (Index c = 0; c < kChannels; ++c) {
    const double s = c < 530 ? scales[static_cast<std::size_t>(c) % std::size(scales)] : 1.25;
    scale.push_back(s);
    mean.push_back(c % 7 == 0 ? 0x1p-120 : 1.0 / static_cast<double>(3 + c));
    slope.push_back(s / 7);
    offset.push_back(-s / 9);
    invstd.push_back(c % 5 == 0 ? 0x1p-95 : 1.0);
  }
  const kernels::ForwardCoefficients forward{{mean.data(), low.data()}, scale.data(), offset.data()};
  const kernels::BackwardCoefficients backward{
      {mean.data(), low.data()}, scale.data(), slope.data(), offset.data(), invstd.data()};
  const auto check = [&](const kernels::KernelTable& table) {
    for (const bool channels_last : {false, true}) {
      constexpr Index kPositions = 5;
      const kernels::BlockShape shape{2, {kChannels, kPositions, channels_last}};
      const Index count = element_count(shape);
      Guarded<TypeParam> x(count), dy(count), y(count), dx(count), scaled(count);
      fill(x, Kind::ordinary, random);
      fill(dy, Kind::ordinary, random);
      table.normalize(x.data(), y.data(), shape, forward, {});
      table.input_gradient(x.data(), dy.data(), dx.data(), shape, backward);
      table.scale(dy.data(), scaled.data(), shape, scale.data());
      for (Index i = 0; i < count; ++i) {
        const auto c = channels_last ? i % kChannels : i / kPositions % kChannels;
        const kernels::BlockShape one{1, {1, 1, false}};
        TypeParam alone[3];
        this->plain().normalize(&x[i], &alone[0], one,
                                {{&mean[static_cast<std::size_t>(c)], &low[0]}, forward.scale + c, forward.shift + c},
                                {});
        this->plain().input_gradient(&x[i], &dy[i], &alone[1], one,
                                     {{backward.mean.hi + c, &low[0]},
                                      backward.scale + c,
                                      backward.slope + c,
                                      backward.offset + c,
                                      backward.invstd + c});
        this->plain().scale(&dy[i], &alone[2], one, forward.scale + c);
        ASSERT_TRUE(same_bits(y[i], alone[0])) << "y of channel " << c;
        ASSERT_TRUE(same_bits(dx[i], alone[1])) << "dx of channel " << c;
        ASSERT_TRUE(same_bits(scaled[i], alone[2])) << "scaled dy of channel " << c;

        const double xmu = static_cast<double>(x[i]) - forward.mean.hi[c];
        const double wanted = xmu * forward.scale[c] + forward.shift[c];
        const double least = static_cast<double>(std::numeric_limits<TypeParam>::denorm_min());
        const double terms = std::fabs(xmu * forward.scale[c]) + std::fabs(forward.shift[c]);
        const double most = static_cast<double>(std::numeric_limits<TypeParam>::max());
        if (std::fabs(wanted) > most) {
          ASSERT_GE(std::fabs(static_cast<double>(y[i])), most);
        } else {  // four roundings in float, and that to 16 bits
          const double unit = static_cast<double>(std::numeric_limits<TypeParam>::epsilon()) / 2;
          ASSERT_LE(std::fabs(static_cast<double>(y[i]) - wanted),
                    1.01 * (unit * std::fabs(wanted) + 4 * 0x1p-24 * terms + least / 2))
              << "channel " << c;
        }
      }
    }
  };
  check(this->plain());
  this->for_each_isa(check);
}

/// Outputs past the cache, from every alignment.
TYPED_TEST(Half, StreamedOutputsAreTheSame) {
  Random random(2);
  const double rows[] = {0.25, 0.0, 1.5, -0.125};
  this->for_each_isa([&](const kernels::KernelTable& table) {
    for (Index shift = 0; shift < 9; ++shift) {
      for (const Index positions : {1, 7, 8, 15, 16, 64, 100, 1000}) {
        Guarded<TypeParam> x(3 * positions, shift % 4);
        fill(x, Kind::special, random);
        Guarded<TypeParam> wanted(3 * positions);
        Guarded<TypeParam> got(3 * positions, shift);
        const std::vector<double> mean(3, rows[0]), low(3, rows[1]), scale(3, rows[2]), offset(3, rows[3]);
        const kernels::ForwardCoefficients k{{mean.data(), low.data()}, scale.data(), offset.data()};
        this->plain().normalize(x.data(), wanted.data(), {1, {3, positions, false}}, k, {});
        table.normalize(x.data(), got.data(), {1, {3, positions, false}, /*streams=*/true}, k, {});
        ASSERT_TRUE(same_bits(got, wanted)) << "positions " << positions << ", shift " << shift;
      }
    }
    for (Index shift = 0; shift < 9; ++shift) {
      Guarded<TypeParam> x(5 * 16);
      fill(x, Kind::special, random);
      Guarded<TypeParam> wanted(5 * 16);
      Guarded<TypeParam> got(5 * 16, shift);
      std::vector<double> numbers(64);
      for (double& number : numbers) number = std::ldexp(static_cast<double>(random() >> 11), -53);
      const kernels::ForwardCoefficients k{
          {numbers.data(), numbers.data() + 16}, numbers.data() + 32, numbers.data() + 48};
      this->plain().normalize(x.data(), wanted.data(), {5, {16, 1, true}}, k, {});
      table.normalize(x.data(), got.data(), {5, {16, 1, true}, /*streams=*/true}, k, {});
      ASSERT_TRUE(same_bits(got, wanted)) << "rows, shift " << shift;
    }
  });
}

}  // namespace
}  // namespace syncbn::testing
