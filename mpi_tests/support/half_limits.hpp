// SPDX-License-Identifier: MIT
// What the tests' templates over the element type need of bfloat16 and float16 besides conversions.
#pragma once

#include <cmath>
#include <limits>
#include <ostream>

#include "syncbn/half.hpp"

namespace std {

template <>
struct numeric_limits<syncbn::bfloat16> {
  static constexpr bool is_specialized = true;
  static syncbn::bfloat16 min() { return syncbn::bfloat16::from_bits(0x0080); }
  static syncbn::bfloat16 max() { return syncbn::bfloat16::from_bits(0x7f7f); }
  static syncbn::bfloat16 epsilon() { return syncbn::bfloat16(0x1p-7); }
  static syncbn::bfloat16 denorm_min() { return syncbn::bfloat16::from_bits(1); }
  static syncbn::bfloat16 infinity() { return syncbn::bfloat16::from_bits(0x7f80); }
  static syncbn::bfloat16 quiet_NaN() { return syncbn::bfloat16::from_bits(0x7fc0); }
};

template <>
struct numeric_limits<syncbn::float16> {
  static constexpr bool is_specialized = true;
  static syncbn::float16 min() { return syncbn::float16::from_bits(0x0400); }
  static syncbn::float16 max() { return syncbn::float16::from_bits(0x7bff); }
  static syncbn::float16 epsilon() { return syncbn::float16(0x1p-10); }
  static syncbn::float16 denorm_min() { return syncbn::float16::from_bits(1); }
  static syncbn::float16 infinity() { return syncbn::float16::from_bits(0x7c00); }
  static syncbn::float16 quiet_NaN() { return syncbn::float16::from_bits(0x7e00); }
};

}  // namespace std

namespace syncbn {

inline std::ostream& operator<<(std::ostream& out, bfloat16 value) { return out << static_cast<float>(value); }
inline std::ostream& operator<<(std::ostream& out, float16 value) { return out << static_cast<float>(value); }

inline bool operator==(bfloat16 a, bfloat16 b) { return static_cast<float>(a) == static_cast<float>(b); }
inline bool operator==(float16 a, float16 b) { return static_cast<float>(a) == static_cast<float>(b); }
inline bfloat16 operator-(bfloat16 a) { return bfloat16(-static_cast<float>(a)); }
inline float16 operator-(float16 a) { return float16(-static_cast<float>(a)); }

namespace testing {

template <class T>
inline constexpr bool kIsHalf = sizeof(T) == 2;

template <class T>
bool is_nan(T value) {
  return std::isnan(static_cast<double>(value));
}

template <class T>
bool is_finite(T value) {
  return std::isfinite(static_cast<double>(value));
}

/// The neighbour of `from` that is nearer to `to`; for 16-bit types of the same sign only, and from != to.
template <class T>
T next_after(T from, T to) {
  if constexpr (kIsHalf<T>) {
    const bool grows = (from.bits & 0x7fffu) < (to.bits & 0x7fffu);
    return T::from_bits(static_cast<std::uint16_t>(from.bits + (grows ? 1 : -1)));
  } else {
    return std::nextafter(from, to);
  }
}

}  // namespace testing
}  // namespace syncbn
