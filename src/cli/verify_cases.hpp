// SPDX-License-Identifier: MIT
// The batches of `syncbn verify`. Every rank makes all of each batch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "derivation.hpp"
#include "syncbn/options.hpp"

namespace syncbn::cli {

struct VerifyCase {
  std::string name;
  Matrix x, dy;  ///< Rows by rank, then sample, then position. Multiples of 2^-12, so f32 holds them exactly.
  Parameters parameters;
  Layout layout = Layout::channels_first;
  Index positions = 1;        ///< Of a sample.
  std::vector<Index> shards;  ///< Samples per rank.
  Reduction reduction = Reduction::reproducible;
};

/// N = 2 samples, D = 3 features; sample 0 on the first rank and sample 1 on the last.
VerifyCase worked_example(double eps, int ranks);

/// Random batch number `index`, 0 and up: shapes, layouts and splits take turns; some ranks have no samples.
VerifyCase random_case(std::uint64_t seed, int index, double eps, int ranks);

}  // namespace syncbn::cli
