// SPDX-License-Identifier: MIT
#include "shards.hpp"

#include <charconv>
#include <cstddef>
#include <string_view>

#include "failure.hpp"

namespace syncbn::cli {

std::vector<Index> even_shards(Index rows, int ranks) {
  std::vector<Index> shards(static_cast<std::size_t>(ranks), rows / ranks);
  for (std::size_t r = 0; r < static_cast<std::size_t>(rows % ranks); ++r) ++shards[r];
  return shards;
}

std::vector<Index> parse_shards(const std::string& text) {
  std::vector<Index> shards;
  std::string_view rest = text;
  for (bool more = true; more;) {
    const std::size_t comma = rest.find(',');
    const std::string_view word = rest.substr(0, comma);
    Index rows = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), rows);
    if (error != std::errc() || end != word.data() + word.size() || rows < 0) {
      throw LocalFailure(kUsage, "'" + std::string(word) + "' is not a number of rows, wanted a list like 5,0,11");
    }
    shards.push_back(rows);
    more = comma != std::string_view::npos;
    if (more) rest.remove_prefix(comma + 1);
  }
  return shards;
}

std::vector<Index> shards_for(const std::string& text, Index rows, int ranks) {
  if (text.empty()) return even_shards(rows, ranks);
  std::vector<Index> shards = parse_shards(text);
  if (shards.size() != static_cast<std::size_t>(ranks)) {
    throw LocalFailure(kUsage, "--shards has " + std::to_string(shards.size()) + " sizes, wanted one for each of the " +
                                   std::to_string(ranks) + " ranks");
  }
  Index left = rows;  // goes below 0 instead of a sum that overflows
  for (const Index shard : shards) {
    left -= shard;
    if (left < 0) break;
  }
  if (left != 0) {
    throw LocalFailure(kUsage, "--shards " + text + " adds up to " + (left < 0 ? "more" : "less") + " than the " +
                                   std::to_string(rows) + " rows of the input");
  }
  return shards;
}

RowRange rows_of_rank(const std::vector<Index>& shards, int rank) {
  RowRange range;
  for (std::size_t r = 0; r < static_cast<std::size_t>(rank); ++r) range.first += shards[r];
  range.count = shards[static_cast<std::size_t>(rank)];
  return range;
}

std::string shards_text(const std::vector<Index>& shards) {
  constexpr std::size_t kMostAtEachEnd = 8;
  std::string text;
  for (std::size_t r = 0; r < shards.size(); ++r) {
    const bool is_hidden = r >= kMostAtEachEnd && r + kMostAtEachEnd < shards.size();
    if (is_hidden && r > kMostAtEachEnd) continue;
    text += (r == 0 ? "" : ", ") + (is_hidden ? "..." : std::to_string(shards[r]));
  }
  return text;
}

}  // namespace syncbn::cli
