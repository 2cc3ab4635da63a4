// SPDX-License-Identifier: MIT
// Random batches that every rank can make by itself, and ways to split them.
#pragma once

#include <cstdint>
#include <vector>

#include "support/tensor.hpp"

namespace syncbn::testing::inputs {

/// What the numbers are. Element (n, c, s) is offset + scale * gaussian(seed, n, c, s) with n counted over the whole
/// batch, so a sample's numbers do not depend on the split or on the layout.
struct Recipe {
  std::uint64_t seed = 1;
  Index channels = 5;
  std::vector<Index> spatial = {};  ///< Empty: 2-D.
  Layout layout = Layout::channels_first;
  double offset = 0;
  double scale = 1;
};

/// A uniform number in (0, 1) that belongs to (seed, counter).
double uniform(std::uint64_t seed, std::uint64_t counter);

/// A standard normal number that belongs to (seed, sample, channel, position).
double gaussian(std::uint64_t seed, Index sample, Index channel, Index position);

/// counts[r] samples for rank r.
template <class T>
Batch<T> batch(const Recipe& recipe, const std::vector<Index>& counts);

/// The same with spatial extents of its own for every rank.
template <class T>
Batch<T> batch(const Recipe& recipe, const std::vector<Index>& counts, const std::vector<std::vector<Index>>& spatial);

/// C numbers around `center`, away from 0 where center +- width is: parameters.
std::vector<double> parameters(std::uint64_t seed, Index channels, double center, double width);

/// Overwrites one channel everywhere.
template <class T>
void set_channel(Batch<T>& batch, Index channel, T value);

/// How `samples` samples may lie on `ranks` ranks.
enum class Split { even, uneven, first_empty, only_last, random };
inline constexpr Split kSplits[] = {Split::even, Split::uneven, Split::first_empty, Split::only_last, Split::random};

const char* name_of(Split split);

/// Samples per rank; they add up to `samples`. `even`: the first ranks take the rest. `uneven`: rank r has r+2 shares.
/// `first_empty`: rank 0 has none (but if it is alone). `random`: some ranks may be empty.
std::vector<Index> split(Split kind, Index samples, int ranks, std::uint64_t seed = 1);

}  // namespace syncbn::testing::inputs
