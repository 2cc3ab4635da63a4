// SPDX-License-Identifier: MIT
#include "statistics/wide_integer.hpp"

#include <algorithm>
#include <cmath>

namespace syncbn::statistics {
namespace {

__extension__ using Uint128 = unsigned __int128;

constexpr int kDoubleDigits = 53;
constexpr int kLowestBit = -1074;  // of a double

}  // namespace

WideInteger::WideInteger(std::int64_t value) : negative_(value < 0) {
  word_[0] = negative_ ? ~static_cast<std::uint64_t>(value) + 1 : static_cast<std::uint64_t>(value);
}

bool WideInteger::is_zero() const { return bit_length() == 0; }

int WideInteger::bit_length() const {
  for (int w = kWords - 1; w >= 0; --w) {
    if (word_[w] != 0) return 64 * w + 64 - __builtin_clzll(word_[w]);
  }
  return 0;
}

int WideInteger::compare_magnitude(const WideInteger& other) const {
  for (int w = kWords - 1; w >= 0; --w) {
    if (word_[w] != other.word_[w]) return word_[w] < other.word_[w] ? -1 : 1;
  }
  return 0;
}

void WideInteger::add_magnitude(const WideInteger& other) {
  Uint128 carry = 0;
  for (int w = 0; w < kWords; ++w) {
    carry += static_cast<Uint128>(word_[w]) + other.word_[w];
    word_[w] = static_cast<std::uint64_t>(carry);
    carry >>= 64;
  }
}

void WideInteger::subtract_magnitude(const WideInteger& smaller) {
  std::uint64_t borrow = 0;
  for (int w = 0; w < kWords; ++w) {
    const Uint128 taken = static_cast<Uint128>(word_[w]) - smaller.word_[w] - borrow;
    word_[w] = static_cast<std::uint64_t>(taken);
    borrow = (taken >> 64) != 0 ? 1 : 0;
  }
}

WideInteger& WideInteger::operator+=(const WideInteger& other) {
  if (negative_ == other.negative_) {
    add_magnitude(other);
  } else if (compare_magnitude(other) >= 0) {
    subtract_magnitude(other);
  } else {
    WideInteger larger = other;
    larger.subtract_magnitude(*this);
    *this = larger;
  }
  return *this;
}

WideInteger& WideInteger::operator-=(const WideInteger& other) {
  WideInteger opposite = other;
  opposite.negative_ = !other.negative_;
  return *this += opposite;
}

WideInteger& WideInteger::operator<<=(int bits) {
  const int words = bits / 64;
  const int offset = bits % 64;
  for (int w = kWords - 1; w >= 0; --w) {
    const std::uint64_t high = w >= words ? word_[w - words] : 0;
    const std::uint64_t low = w > words ? word_[w - words - 1] : 0;
    word_[w] = offset == 0 ? high : (high << offset | low >> (64 - offset));
  }
  return *this;
}

WideInteger& WideInteger::operator*=(std::uint64_t factor) {
  Uint128 carry = 0;
  for (std::uint64_t& word : word_) {
    carry += static_cast<Uint128>(word) * factor;
    word = static_cast<std::uint64_t>(carry);
    carry >>= 64;
  }
  return *this;
}

WideInteger WideInteger::squared() const {
  WideInteger square;
  for (int w = 0; w < kWords / 2; ++w) {
    WideInteger partial = *this;
    partial.negative_ = false;
    partial *= word_[w];
    partial <<= 64 * w;
    square.add_magnitude(partial);
  }
  return square;
}

bool WideInteger::any_bit_below(int position) const {
  const bool in_whole_words = std::any_of(word_, word_ + position / 64, [](std::uint64_t word) { return word != 0; });
  return in_whole_words || (position % 64 != 0 && (word_[position / 64] << (64 - position % 64)) != 0);
}

/// The bits from `position` up, which must fit 64.
std::uint64_t WideInteger::bits_from(int position) const {
  const int w = position / 64;
  const int offset = position % 64;
  const std::uint64_t low = word_[w] >> offset;
  return offset == 0 || w + 1 == kWords ? low : (low | word_[w + 1] << (64 - offset));
}

double WideInteger::take_nearest(int scale) {
  const int length = bit_length();
  if (length == 0) return 0.0;
  const int lowest =
      std::max({length - kDoubleDigits, kLowestBit - scale, 0});  // the last bit that the double can hold
  if (lowest > length) return 0.0;                                // less than half of the least double
  std::uint64_t significand = lowest == length ? 0 : bits_from(lowest);
  const bool above_half = lowest > 0 && bit(lowest - 1) && any_bit_below(lowest - 1);
  const bool half = lowest > 0 && bit(lowest - 1) && !above_half;
  if (above_half || (half && (significand & 1) != 0)) ++significand;

  const double magnitude = std::ldexp(static_cast<double>(significand), lowest + scale);
  const double value = negative_ ? -magnitude : magnitude;
  WideInteger taken(static_cast<std::int64_t>(significand));
  taken <<= lowest;
  taken.negative_ = negative_;
  *this -= taken;
  return value;
}

DoubleDouble WideInteger::to_double_double(int scale) const {
  WideInteger rest = *this;
  const double hi = rest.take_nearest(scale);
  return {hi, std::isinf(hi) ? 0.0 : rest.take_nearest(scale)};
}

}  // namespace syncbn::statistics
