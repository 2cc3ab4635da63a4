// SPDX-License-Identifier: MIT
// The two 16-bit floating-point types as storage: conversions, no arithmetic.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace syncbn {

/// Bit patterns of 16-bit numbers and of floats. Integers alone: neither the rounding mode, nor a processor that
/// flushes subnormal numbers, nor -ffast-math changes them.
namespace half {

inline std::uint32_t bits_of(float value) noexcept {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(std::uint32_t bits) noexcept {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// bits / 2^shift, rounded to nearest, ties to even; shift from 1 to 31.
constexpr std::uint32_t shifted_to_nearest(std::uint32_t bits, int shift) noexcept {
  const std::uint32_t below_half = (std::uint32_t{1} << (shift - 1)) - 1;
  return (bits + below_half + (bits >> shift & 1)) >> shift;
}

inline constexpr std::uint32_t kSign = 0x80000000u;
inline constexpr std::uint32_t kInfinity = 0x7f800000u;  // the pattern of a float; NaNs lie above

inline std::uint16_t bfloat16_bits(float value) noexcept {
  const std::uint32_t bits = bits_of(value);
  const bool is_nan = (bits & ~kSign) > kInfinity;
  return static_cast<std::uint16_t>(is_nan ? bits >> 16 | 0x40u : shifted_to_nearest(bits, 16));
}

inline float from_bfloat16(std::uint16_t bits) noexcept { return float_of(std::uint32_t{bits} << 16); }

inline std::uint16_t float16_bits(float value) noexcept {
  constexpr std::uint32_t kOverflow = 0x477ff000u;     // 65520: halfway between the largest number and 2^16
  constexpr std::uint32_t kLeastNormal = 0x38800000u;  // 2^-14
  constexpr std::uint32_t kBias = (127u - 15u) << 23;
  constexpr int kDropped = 23 - 10;

  const std::uint32_t size = bits_of(value) & ~kSign;
  std::uint32_t result = 0x7c00u;
  if (size > kInfinity) {
    result = 0x7e00u | (size >> kDropped & 0x3ffu);
  } else if (size < kLeastNormal) {  // a multiple of 2^-24, which is what the pattern counts
    const int shift = 126 - static_cast<int>(size >> 23);
    const std::uint32_t significand = (size & 0x7fffffu) | 0x800000u;
    result = shift > 24 ? 0 : shifted_to_nearest(significand, shift);  // beyond 24: below 2^-25
  } else if (size < kOverflow) {
    result = shifted_to_nearest(size - kBias, kDropped);
  }
  return static_cast<std::uint16_t>(bits_of(value) >> 16 & 0x8000u) | static_cast<std::uint16_t>(result);
}

inline float from_float16(std::uint16_t bits) noexcept {
  const std::uint32_t sign = std::uint32_t{bits & 0x8000u} << 16;
  std::uint32_t exponent = bits >> 10 & 0x1fu;
  std::uint32_t significand = bits & 0x3ffu;
  if (exponent == 0x1fu) return float_of(sign | kInfinity | significand << 13);
  if (exponent == 0 && significand == 0) return float_of(sign);
  if (exponent == 0) {  // every subnormal number is a normal float
    for (exponent = 1; (significand & 0x400u) == 0; --exponent) significand <<= 1;
    significand &= 0x3ffu;
  }
  return float_of(sign | (exponent + (127 - 15)) << 23 | significand << 13);
}

}  // namespace half

/// Brain floating point, the upper half of a float: 8 bits of precision, 1e-38 to 3e38.
///
/// From a float: rounded to nearest, ties to even; overflow is infinity, subnormal numbers are kept, a NaN stays a (quiet)
/// NaN. Other arithmetic types are rounded to float first. To a floating-point type: exact.
struct bfloat16 {
  std::uint16_t bits;

  bfloat16() = default;
  template <class Number, std::enable_if_t<std::is_arithmetic_v<Number>, int> = 0>
  explicit bfloat16(Number value) noexcept : bits(half::bfloat16_bits(static_cast<float>(value))) {}
  template <class Number, std::enable_if_t<std::is_floating_point_v<Number>, int> = 0>
  explicit operator Number() const noexcept {
    return static_cast<Number>(half::from_bfloat16(bits));
  }
  static bfloat16 from_bits(std::uint16_t bits) noexcept {
    bfloat16 value;
    value.bits = bits;
    return value;
  }
};

/// IEEE 754 binary16: 11 bits of precision, 6e-8 to 65504. Conversions as of bfloat16.
struct float16 {
  std::uint16_t bits;

  float16() = default;
  template <class Number, std::enable_if_t<std::is_arithmetic_v<Number>, int> = 0>
  explicit float16(Number value) noexcept : bits(half::float16_bits(static_cast<float>(value))) {}
  template <class Number, std::enable_if_t<std::is_floating_point_v<Number>, int> = 0>
  explicit operator Number() const noexcept {
    return static_cast<Number>(half::from_float16(bits));
  }
  static float16 from_bits(std::uint16_t bits) noexcept {
    float16 value;
    value.bits = bits;
    return value;
  }
};

static_assert(sizeof(bfloat16) == 2 && std::is_trivially_copyable_v<bfloat16>);
static_assert(sizeof(float16) == 2 && std::is_trivially_copyable_v<float16>);

}  // namespace syncbn
