// SPDX-License-Identifier: MIT
// Integers of up to 512 bits, for the exact end of a sum: sign and magnitude, a fixed size, no allocation.
#pragma once

#include <cstdint>

#include "statistics/double_double.hpp"

namespace syncbn::statistics {

class WideInteger {
 public:
  static constexpr int kWords = 8;
  static constexpr int kBits = 64 * kWords;

  WideInteger() = default;
  /// From a two's complement number of 64 bits.
  explicit WideInteger(std::int64_t value);

  bool is_zero() const;
  bool is_negative() const { return negative_; }
  int bit_length() const;

  WideInteger& operator+=(const WideInteger& other);
  WideInteger& operator-=(const WideInteger& other);
  WideInteger& operator<<=(int bits);  ///< Times 2^bits; the result must fit.
  WideInteger& operator*=(std::uint64_t factor);
  WideInteger squared() const;  ///< Of at most 256 bits.

  /// this * 2^scale as hi + lo: hi rounded to the nearest double (ties to even), lo the rest, rounded likewise.
  DoubleDouble to_double_double(int scale) const;

 private:
  /// Takes the double nearest to this * 2^scale away from this, and returns it.
  double take_nearest(int scale);
  std::uint64_t bits_from(int position) const;
  bool bit(int position) const { return (word_[position / 64] >> (position % 64) & 1) != 0; }
  bool any_bit_below(int position) const;
  int compare_magnitude(const WideInteger& other) const;
  void add_magnitude(const WideInteger& other);
  void subtract_magnitude(const WideInteger& smaller);

  std::uint64_t word_[kWords] = {};  // little-endian
  bool negative_ = false;
};

}  // namespace syncbn::statistics
