// SPDX-License-Identifier: MIT
// Exact dyadic numbers of any size: the oracle of the tests of sums. Written for clearness, and on purpose without
// anything from src/statistics.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <vector>

namespace syncbn::testing {

/// sign * digits * 2^exponent, with as many 32-bit digits as it takes. Every finite double is one; sums, differences
/// and products of them are exact.
class Exact {
 public:
  Exact() = default;
  /// Throws std::invalid_argument if `value` is not finite.
  Exact(double value);  // NOLINT(google-explicit-constructor): a double is such a number
  /// value * 2^exponent
  static Exact scaled(std::int64_t value, int exponent);

  bool is_zero() const { return digits_.empty(); }
  bool is_negative() const { return negative_; }
  Exact magnitude() const;

  Exact& operator+=(const Exact& other);
  friend Exact operator+(Exact a, const Exact& b) { return a += b; }
  friend Exact operator-(const Exact& a);
  friend Exact operator-(const Exact& a, const Exact& b) { return a + -b; }
  friend Exact operator*(const Exact& a, const Exact& b);
  /// Below 0, 0, above 0: a < b, a = b, a > b.
  friend int compare(const Exact& a, const Exact& b);
  friend bool operator==(const Exact& a, const Exact& b) { return compare(a, b) == 0; }
  friend bool operator<(const Exact& a, const Exact& b) { return compare(a, b) < 0; }
  friend bool operator<=(const Exact& a, const Exact& b) { return compare(a, b) <= 0; }
  friend std::ostream& operator<<(std::ostream& out, const Exact& value);

  /// The nearest multiple of 2^exponent, ties to the even multiple.
  Exact rounded_to(int exponent) const;
  /// The nearest number of the format, ties to even; infinite beyond its range.
  double to_double() const;
  float to_float() const;

 private:
  /// In units of 2^exponent, which must not be above exponent_.
  std::vector<std::uint32_t> digits_at(int exponent) const;
  int top_bit() const;  // position of the leading bit: 2^top_bit <= |this| < 2^(top_bit+1)
  double rounded_to_format(int precision, int least_exponent, int greatest_exponent) const;
  void trim();

  std::vector<std::uint32_t> digits_;  // little-endian, no zero digits at either end
  int exponent_ = 0;
  bool negative_ = false;
};

}  // namespace syncbn::testing
