// SPDX-License-Identifier: MIT
#include "support/exact.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <ostream>
#include <stdexcept>

namespace syncbn::testing {
namespace {

using Digits = std::vector<std::uint32_t>;
constexpr int kDigitBits = 32;

void drop_leading_zeros(Digits& digits) {
  while (!digits.empty() && digits.back() == 0) digits.pop_back();
}

int compare_digits(const Digits& a, const Digits& b) {
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  for (std::size_t i = a.size(); i-- > 0;) {
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  }
  return 0;
}

void add_digits(Digits& a, const Digits& b) {
  a.resize(std::max(a.size(), b.size()) + 1);
  std::uint64_t carry = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    carry += std::uint64_t{a[i]} + (i < b.size() ? b[i] : 0);
    a[i] = static_cast<std::uint32_t>(carry);
    carry >>= kDigitBits;
  }
  drop_leading_zeros(a);
}

/// a - b for a >= b.
void subtract_digits(Digits& a, const Digits& b) {
  std::int64_t borrow = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::int64_t digit = std::int64_t{a[i]} - (i < b.size() ? b[i] : 0) - borrow;
    borrow = digit < 0 ? 1 : 0;
    digit += borrow << kDigitBits;
    a[i] = static_cast<std::uint32_t>(digit);
  }
  drop_leading_zeros(a);
}

bool bit_of(const Digits& digits, int position) {
  const auto i = static_cast<std::size_t>(position / kDigitBits);
  return i < digits.size() && (digits[i] >> (position % kDigitBits) & 1) != 0;
}

bool any_bit_below(const Digits& digits, int position) {
  for (int i = 0; i < position; ++i) {
    if (bit_of(digits, i)) return true;
  }
  return false;
}

}  // namespace

Exact::Exact(double value) {
  if (!std::isfinite(value)) throw std::invalid_argument("Exact: the value is not finite");
  int exponent = 0;
  const double fraction = std::frexp(value, &exponent);
  *this = scaled(static_cast<std::int64_t>(fraction * 0x1p53), exponent - 53);
}

Exact Exact::scaled(std::int64_t value, int exponent) {
  Exact result;
  result.negative_ = value < 0;
  const auto wide = static_cast<std::uint64_t>(value);
  const std::uint64_t magnitude = value < 0 ? ~wide + 1 : wide;
  result.digits_ = {static_cast<std::uint32_t>(magnitude), static_cast<std::uint32_t>(magnitude >> kDigitBits)};
  result.exponent_ = exponent;
  result.trim();
  return result;
}

void Exact::trim() {
  drop_leading_zeros(digits_);
  const auto first = std::find_if(digits_.begin(), digits_.end(), [](std::uint32_t digit) { return digit != 0; });
  exponent_ += kDigitBits * static_cast<int>(first - digits_.begin());
  digits_.erase(digits_.begin(), first);
  if (digits_.empty()) {
    exponent_ = 0;
    negative_ = false;
  }
}

Exact Exact::magnitude() const {
  Exact result = *this;
  result.negative_ = false;
  return result;
}

std::vector<std::uint32_t> Exact::digits_at(int exponent) const {
  const int shift = exponent_ - exponent;
  if (digits_.empty()) return {};
  if (shift < 0) throw std::logic_error("Exact: digits would be lost");
  Digits shifted(static_cast<std::size_t>(shift / kDigitBits), 0);
  std::uint64_t carry = 0;
  for (const std::uint32_t digit : digits_) {
    carry |= std::uint64_t{digit} << (shift % kDigitBits);
    shifted.push_back(static_cast<std::uint32_t>(carry));
    carry >>= kDigitBits;
  }
  shifted.push_back(static_cast<std::uint32_t>(carry));
  drop_leading_zeros(shifted);
  return shifted;
}

Exact& Exact::operator+=(const Exact& other) {
  if (other.is_zero()) return *this;
  if (is_zero()) return *this = other;
  const int exponent = std::min(exponent_, other.exponent_);
  Digits mine = digits_at(exponent);
  Digits theirs = other.digits_at(exponent);
  if (negative_ == other.negative_) {
    add_digits(mine, theirs);
  } else if (compare_digits(mine, theirs) >= 0) {
    subtract_digits(mine, theirs);
  } else {
    subtract_digits(theirs, mine);
    mine.swap(theirs);
    negative_ = other.negative_;
  }
  digits_ = std::move(mine);
  exponent_ = exponent;
  trim();
  return *this;
}

Exact operator-(const Exact& a) {
  Exact result = a;
  result.negative_ = !a.negative_ && !a.is_zero();
  return result;
}

Exact operator*(const Exact& a, const Exact& b) {
  Exact product;
  product.digits_.assign(a.digits_.size() + b.digits_.size(), 0);
  for (std::size_t i = 0; i < a.digits_.size(); ++i) {
    std::uint64_t carry = 0;
    for (std::size_t j = 0; j < b.digits_.size() || carry != 0; ++j) {
      carry += product.digits_[i + j];
      if (j < b.digits_.size()) carry += std::uint64_t{a.digits_[i]} * b.digits_[j];
      product.digits_[i + j] = static_cast<std::uint32_t>(carry);
      carry >>= kDigitBits;
    }
  }
  product.exponent_ = a.exponent_ + b.exponent_;
  product.negative_ = a.negative_ != b.negative_;
  product.trim();
  return product;
}

int compare(const Exact& a, const Exact& b) {
  const Exact difference = a - b;
  if (difference.is_zero()) return 0;
  return difference.negative_ ? -1 : 1;
}

int Exact::top_bit() const {
  const int leading = kDigitBits - 1 - __builtin_clz(digits_.back());
  return exponent_ + kDigitBits * (static_cast<int>(digits_.size()) - 1) + leading;
}

Exact Exact::rounded_to(int exponent) const {
  if (is_zero() || exponent <= exponent_) return *this;
  const int cut = exponent - exponent_;  // bits below the unit
  Exact below;                           // towards zero
  below.negative_ = negative_;
  below.exponent_ = exponent;
  const int bits = kDigitBits * static_cast<int>(digits_.size());
  below.digits_.assign(digits_.size() + 1, 0);
  for (int i = cut; i < bits; ++i) {
    const int to = i - cut;
    if (bit_of(digits_, i)) below.digits_[static_cast<std::size_t>(to / kDigitBits)] |= 1u << (to % kDigitBits);
  }
  const bool odd = cut < bits && bit_of(digits_, cut);
  below.trim();
  const bool half = bit_of(digits_, cut - 1);
  if (!half || (!any_bit_below(digits_, std::min(cut - 1, bits)) && !odd)) return below;
  return below + scaled(negative_ ? -1 : 1, exponent);
}

double Exact::rounded_to_format(int precision, int least_exponent, int greatest_exponent) const {
  if (is_zero()) return 0.0;
  const Exact nearest = rounded_to(std::max(top_bit() - precision + 1, least_exponent));
  if (nearest.is_zero()) return negative_ ? -0.0 : 0.0;
  const double infinity = std::numeric_limits<double>::infinity();
  if (nearest.top_bit() > greatest_exponent) return negative_ ? -infinity : infinity;
  double value = 0.0;  // at most 53 bits: every step is exact
  for (std::size_t i = nearest.digits_.size(); i-- > 0;) {
    value += std::ldexp(static_cast<double>(nearest.digits_[i]), nearest.exponent_ + kDigitBits * static_cast<int>(i));
  }
  return negative_ ? -value : value;
}

double Exact::to_double() const { return rounded_to_format(53, -1074, 1023); }
float Exact::to_float() const { return static_cast<float>(rounded_to_format(24, -149, 127)); }

std::ostream& operator<<(std::ostream& out, const Exact& value) {
  return out << "about " << value.to_double() << " (" << value.digits_.size() << " digits, * 2^" << value.exponent_
             << ")";
}

}  // namespace syncbn::testing
