// SPDX-License-Identifier: MIT
// One binned accumulator as a value, and what it must hold by definition.
#pragma once

#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <ostream>
#include <random>
#include <vector>

#include "statistics/bins.hpp"
#include "support/exact.hpp"

namespace syncbn::testing {

class Accumulator {
 public:
  explicit Accumulator(int bins) : bins_(bins) { statistics::clear_bins(view()); }
  Accumulator(int bins, const std::vector<double>& values) : Accumulator(bins) {
    for (const double value : values) add(value);
  }

  void add(double value) { statistics::deposit(view(), 0, value); }
  void merge(const Accumulator& other) { statistics::merge_bins(view(), other.view()); }

  int bins() const { return bins_; }
  int top() const { return top_; }
  statistics::DoubleDouble sum() const { return statistics::sum_of(view(), 0); }
  /// From the bins themselves, not through WideInteger.
  Exact exact() const {
    Exact total;
    for (int k = 0; k < bins_ && top_ != statistics::kNoWindow; ++k) {
      total += Exact::scaled(bin_[static_cast<std::size_t>(k)], statistics::kBinWidth * (top_ - k));
    }
    return total;
  }
  statistics::BinsView view() const {
    auto* self = const_cast<Accumulator*>(this);
    return {1, bins_, self->bin_.data(), &self->top_, &self->nonfinite_};
  }

  friend bool operator==(const Accumulator&, const Accumulator&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Accumulator& a) {
    out << "top " << a.top_ << " bins";
    for (int k = 0; k < a.bins_; ++k) out << ' ' << a.bin_[static_cast<std::size_t>(k)];
    return out << " non-finite " << int{a.nonfinite_};
  }

 private:
  int bins_;
  std::array<std::int64_t, statistics::kMaxBins> bin_{};
  std::int16_t top_ = 0;
  std::uint8_t nonfinite_ = 0;
};

/// The unit of a bin, 2^(kBinWidth * bin), as an exponent.
inline int unit_exponent(int bin) { return statistics::kBinWidth * bin; }

/// By definition: the lowest t such that value, rounded to units of bin t, is in [-kTopHalf, kTopHalf) units.
inline int top_by_definition(double value) {
  const Exact exact(value);
  int t = std::ilogb(value) / statistics::kBinWidth - 3;  // far too low: more than a bin's width above kTopHalf units
  for (;; ++t) {
    const Exact limit = Exact::scaled(statistics::kTopHalf, unit_exponent(t));
    const Exact rounded = exact.rounded_to(unit_exponent(t));
    if (-limit <= rounded && rounded < limit) return t;
  }
}

/// By definition: the values, each rounded to a multiple of the unit of the lowest bin that the largest one leaves,
/// added up exactly.
inline Exact sum_by_definition(const std::vector<double>& values, int bins) {
  std::optional<int> top;
  for (const double value : values) {
    if (value != 0.0) top = std::max(top.value_or(-1000), top_by_definition(value));
  }
  Exact sum;
  for (const double value : values) {
    if (top) sum += Exact(value).rounded_to(unit_exponent(*top - bins + 1));
  }
  return sum;
}

inline Exact exact_sum(const std::vector<double>& values) {
  Exact sum;
  for (const double value : values) sum += Exact(value);
  return sum;
}

inline double largest_magnitude(const std::vector<double>& values) {
  double largest = 0.0;
  for (const double value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

/// Values on and around everything at which the cutting into bins decides: multiples and half multiples of the bins'
/// units, ends of their ranges, each with its neighbours, both signs.
inline std::vector<double> border_values(int lowest_bin, int highest_bin) {
  std::vector<double> values;
  const auto add_with_neighbours = [&values](double value) {
    if (!std::isfinite(value) || value == 0.0) return;
    const double infinity = std::numeric_limits<double>::infinity();
    for (const double near : {value, std::nextafter(value, infinity), std::nextafter(value, -infinity)}) {
      if (std::isfinite(near)) values.insert(values.end(), {near, -near});
    }
  };
  const double half = static_cast<double>(statistics::kTopHalf);
  for (int bin = lowest_bin; bin <= highest_bin; ++bin) {
    for (const double units : {0.5, 1.0, 1.5, 2.5, half / 2, half - 1.0, half - 0.5, half - 0.25, half, half + 0.25,
                               half + 0.5, half + 1.0, 1.5 * half, 2 * half - 0.5, 2 * half}) {
      add_with_neighbours(std::ldexp(units, unit_exponent(bin)));
    }
  }
  return values;
}

/// What no list of bins contains: ends of the formats, and zeros.
inline std::vector<double> extreme_values() {
  using Double = std::numeric_limits<double>;
  using Float = std::numeric_limits<float>;
  std::vector<double> values = {0.0, -0.0};
  for (const double value : {Double::max(), Double::max() / 2, Double::min(), Double::denorm_min(),
                             3 * Double::denorm_min(), Double::min() - Double::denorm_min(), double{Float::max()},
                             double{Float::min()}, double{Float::denorm_min()}, double{Float::max()} * Float::max(),
                             double{Float::denorm_min()} * Float::denorm_min(), 1.0, 0.1, 1e30, 1e300}) {
    values.insert(values.end(), {value, -value});
  }
  return values;
}

inline std::vector<double> nasty_values(int lowest_bin, int highest_bin) {
  std::vector<double> values = border_values(lowest_bin, highest_bin);
  const std::vector<double> extremes = extreme_values();
  values.insert(values.end(), extremes.begin(), extremes.end());
  return values;
}

using Random = std::mt19937_64;

inline double any_of(const std::vector<double>& pool, Random& random) { return pool[random() % pool.size()]; }

}  // namespace syncbn::testing
