// SPDX-License-Identifier: MIT
// Comparing what the layer wrote with what is right, and saying where it differs most.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <mpi.h>

#include "support/tensor.hpp"
#include "syncbn/channel_vector.hpp"

namespace syncbn::testing {

inline int world_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

inline int world_size() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

/// The largest |got - want| / bound, and where. Differences that are no numbers count as infinite.
class WorstDifference {
 public:
  void add(Real got, Real want, Real bound, std::string where) {
    // Both checks are written so that a NaN anywhere is a difference.
    if (got == want) return;
    const Real difference = std::abs(got - want);
    if (difference <= bound) return;
    const Real excess = std::isfinite(difference) && bound > 0 ? difference / bound : HUGE_VALL;
    ++count_;
    if (excess < excess_) return;
    excess_ = excess;
    text_ = std::move(where) + ": got " + number(got) + ", want " + number(want) + ", difference " +
            number(difference) + ", bound " + number(bound);
  }
  ::testing::AssertionResult result(const std::string& what) const {
    if (count_ == 0) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << what << " is off in " << count_ << " places, most at " << text_;
  }

 private:
  static std::string number(Real value) {
    char text[64];
    std::snprintf(text, sizeof text, "%.17Lg", value);
    return text;
  }
  std::size_t count_ = 0;
  Real excess_ = 0;
  std::string text_;
};

/// bound(n, c, s) for each element.
template <class T, class Bound>
::testing::AssertionResult is_within(const std::string& what, const Tensor<T>& got, const Tensor<Real>& want,
                                     Bound&& bound) {
  WorstDifference worst;
  for_each_element(got, [&](Index n, Index c, Index s) {
    const Real value = static_cast<Real>(got.at(n, c, s));
    const Real right = want.at(n, c, s);
    if (value == right) return;
    worst.add(
        value, right, bound(n, c, s),
        "(sample " + std::to_string(n) + ", channel " + std::to_string(c) + ", position " + std::to_string(s) + ")");
  });
  return worst.result(what);
}

/// Anything with operator[] and C entries; bound(c).
template <class Values, class Bound>
::testing::AssertionResult is_within_channels(const std::string& what, const Values& got, const std::vector<Real>& want,
                                              Bound&& bound) {
  if (static_cast<std::size_t>(got.size()) != want.size()) {
    return ::testing::AssertionFailure() << what << " has " << got.size() << " channels, want " << want.size();
  }
  WorstDifference worst;
  for (std::size_t c = 0; c < want.size(); ++c) {
    const auto index = static_cast<decltype(got.size())>(c);
    worst.add(static_cast<Real>(got[index]), want[c], bound(c), "channel " + std::to_string(c));
  }
  return worst.result(what);
}

/// The bytes themselves, so that two NaNs are equal and 0 and -0 are not.
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

inline std::vector<double> values_of(const ChannelVector& vector) {
  std::vector<double> values;
  for (Index c = 0; c < vector.size(); ++c) values.push_back(vector[c]);
  return values;
}

/// True on all ranks if `mine` has the same bytes on every rank. Collective over MPI_COMM_WORLD; a hash of 64 bits
/// travels.
inline bool is_same_on_all_ranks(const void* data, std::size_t bytes) {
  std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (std::size_t i = 0; i < bytes; ++i) {
    hash = (hash ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001b3u;
  }
  std::uint64_t least = hash;
  std::uint64_t most = hash;
  MPI_Allreduce(&hash, &least, 1, MPI_UINT64_T, MPI_MIN, MPI_COMM_WORLD);
  MPI_Allreduce(&hash, &most, 1, MPI_UINT64_T, MPI_MAX, MPI_COMM_WORLD);
  return least == most;
}
inline bool is_same_on_all_ranks(const std::string& mine) { return is_same_on_all_ranks(mine.data(), mine.size()); }
inline bool is_same_on_all_ranks(const std::vector<double>& mine) {
  return is_same_on_all_ranks(mine.data(), mine.size() * sizeof(double));
}

}  // namespace syncbn::testing
