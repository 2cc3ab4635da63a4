// SPDX-License-Identifier: MIT
// Numbers as unevaluated sums of two doubles, about 106 bits. Needs round-to-nearest and no contraction.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace syncbn::statistics {

/// hi + lo with |lo| <= ulp(hi)/2.
struct DoubleDouble {
  double hi = 0.0;
  double lo = 0.0;
};

/// a + b exactly. 6 operations. Source: Knuth, TAOCP vol. 2, 4.2.2, theorem B.
inline DoubleDouble two_sum(double a, double b) {
  const double s = a + b;
  const double bb = s - a;
  return {s, (a - (s - bb)) + (b - bb)};
}

/// a + b exactly if |a| >= |b| or a = 0. 3 operations. Source: Dekker 1971, Numer. Math. 18.
inline DoubleDouble fast_two_sum(double a, double b) {
  const double s = a + b;
  return {s, b - (s - a)};
}

/// a * b exactly, barring underflow. std::fma is one instruction or a correct function call: the same bits.
inline DoubleDouble two_product(double a, double b) {
  const double p = a * b;
  return {p, std::fma(a, b, -p)};
}

/// Relative error at most 3 * 2^-106. Source: Joldes, Muller & Popescu 2017, ACM TOMS 44(2), algorithm 6.
inline DoubleDouble operator+(DoubleDouble a, DoubleDouble b) {
  const DoubleDouble s = two_sum(a.hi, b.hi);
  const DoubleDouble t = two_sum(a.lo, b.lo);
  const DoubleDouble v = fast_two_sum(s.hi, s.lo + t.hi);
  return fast_two_sum(v.hi, t.lo + v.lo);
}

inline DoubleDouble operator-(DoubleDouble a) { return {-a.hi, -a.lo}; }
inline DoubleDouble operator-(DoubleDouble a, DoubleDouble b) { return a + -b; }

/// Relative error at most 2 * 2^-106 (the same, algorithm 9).
inline DoubleDouble operator*(DoubleDouble a, double b) {
  const DoubleDouble p = two_product(a.hi, b);
  return fast_two_sum(p.hi, std::fma(a.lo, b, p.lo));
}

/// Relative error at most 5 * 2^-106 (the same, algorithm 12).
inline DoubleDouble operator*(DoubleDouble a, DoubleDouble b) {
  const DoubleDouble p = two_product(a.hi, b.hi);
  const double cross = std::fma(a.hi, b.lo, a.lo * b.hi + a.lo * b.lo);
  return fast_two_sum(p.hi, p.lo + cross);
}

/// Relative error at most 3.5 * 2^-106 (the same, algorithm 15).
inline DoubleDouble operator/(DoubleDouble a, double b) {
  const double q = a.hi / b;
  const double rest = std::fma(-q, b, a.hi);
  return fast_two_sum(q, (rest + a.lo) / b);
}

/// 2^exponent, a normal double: -1022 <= exponent <= 1023.
inline double power_of_two(int exponent) {
  const std::uint64_t bits = static_cast<std::uint64_t>(exponent + 1023) << 52;
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace syncbn::statistics
