// SPDX-License-Identifier: MIT
// Which rows of a tensor each rank takes.
#pragma once

#include <string>
#include <vector>

#include "syncbn/tensor_view.hpp"

namespace syncbn::cli {

/// Rows [first, first + count).
struct RowRange {
  Index first = 0;
  Index count = 0;
};

/// Sizes that differ by at most 1; the first ranks take the rest.
std::vector<Index> even_shards(Index rows, int ranks);

/// "5,0,11" to {5, 0, 11}. Throws LocalFailure (usage) unless it is a comma-separated list of numbers >= 0.
std::vector<Index> parse_shards(const std::string& text);

/// The sizes that `text` asks for, near-even ones if it is empty. Throws LocalFailure (usage) unless there is one size
/// per rank and they add up to `rows`.
std::vector<Index> shards_for(const std::string& text, Index rows, int ranks);

RowRange rows_of_rank(const std::vector<Index>& shards, int rank);

/// "5, 0, 11"; the middle of a long list is left out.
std::string shards_text(const std::vector<Index>& shards);

}  // namespace syncbn::cli
