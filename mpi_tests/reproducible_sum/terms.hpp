// SPDX-License-Identifier: MIT
// Terms for the tests of ReproducibleSum, and what their sums must hold.
#pragma once

#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "statistics/bins_block.hpp"
#include "syncbn/reproducible_sum.hpp"

namespace syncbn::testing {

using Random = std::mt19937_64;
using Precision = ReproducibleSum::Precision;

inline constexpr Precision kBothPrecisions[] = {Precision::bits72, Precision::bits146};
inline int bins_of(Precision precision) { return static_cast<int>(precision); }

/// Terms of very different size, borders of bins, zeros; with `special` now and then one that is not finite.
inline double random_term(Random& random, bool special) {
  const auto integer = static_cast<std::int64_t>(random());
  if (special && random() % 40 == 0) {
    const double infinity = std::numeric_limits<double>::infinity();
    const double values[] = {std::nan(""), infinity, -infinity};
    return values[random() % 3];
  }
  switch (random() % 8) {
    case 0:
      return random() % 2 != 0 ? 0.0 : -0.0;
    case 1:  // ends of a bin's range
      return std::ldexp(static_cast<double>(statistics::kTopHalf) - 0.25 * static_cast<double>(random() % 6),
                        statistics::kBinWidth * (static_cast<int>(random() % 7) - 3)) *
             (random() % 2 != 0 ? 1 : -1);
    case 2:  // anything
      return std::ldexp(static_cast<double>(integer), static_cast<int>(random() % 2000) - 1120);
    default:
      return std::ldexp(static_cast<double>(integer >> (random() % 60)), static_cast<int>(random() % 60) - 60);
  }
}

/// rows[r][i] is term r of sum i.
template <class T>
std::vector<std::vector<T>> random_rows(std::size_t rows, Index size, bool special, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::vector<T>> all(rows, std::vector<T>(static_cast<std::size_t>(size)));
  for (auto& row : all) {
    for (T& term : row) term = static_cast<T>(random_term(random, special));
  }
  // A sum without any term but zeros, and one that is small: both beside large ones.
  for (auto& row : all) {
    row.front() = T(0);
    row.back() *= static_cast<T>(0x1p-60);
  }
  return all;
}

/// The blocks' bins, tops and kinds of non-finite terms; without the count of terms, of which add_array counts one for
/// all sums and add one for each.
inline ::testing::AssertionResult same_content(const std::byte* got, const std::byte* wanted, std::size_t bytes) {
  const std::size_t header = sizeof(statistics::BinsHeader);
  if (std::memcmp(got + header, wanted + header, bytes - header) == 0) return ::testing::AssertionSuccess();
  const statistics::BinsView a = statistics::view_of(got);
  const statistics::BinsView b = statistics::view_of(wanted);
  for (Index i = 0; i < a.size; ++i) {
    if (a.top[i] != b.top[i]) {
      return ::testing::AssertionFailure() << "sum " << i << ": top " << a.top[i] << ", wanted " << b.top[i];
    }
    for (int k = 0; k < a.bins; ++k) {
      const Index at = k * a.size + i;
      if (a.bin[at] != b.bin[at]) {
        return ::testing::AssertionFailure() << "sum " << i << " of " << a.size << " (top " << a.top[i] << "), bin "
                                             << k << ": " << a.bin[at] << ", wanted " << b.bin[at];
      }
    }
    if (a.nonfinite[i] != b.nonfinite[i]) return ::testing::AssertionFailure() << "sum " << i << ": non-finite kinds";
  }
  return ::testing::AssertionFailure() << "the padding differs";
}
inline ::testing::AssertionResult same_content(const ReproducibleSum& got, const ReproducibleSum& wanted) {
  return same_content(got.payload(), wanted.payload(), got.payload_bytes());
}
inline ::testing::AssertionResult same_bytes(const ReproducibleSum& got, const ReproducibleSum& wanted) {
  if (got.payload_bytes() == wanted.payload_bytes() &&
      std::memcmp(got.payload(), wanted.payload(), got.payload_bytes()) == 0) {
    return ::testing::AssertionSuccess();
  }
  const auto content = same_content(got, wanted);
  return content ? ::testing::AssertionFailure() << "the headers differ" : content;
}

}  // namespace syncbn::testing
