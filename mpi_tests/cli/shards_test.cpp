// SPDX-License-Identifier: MIT
#include "shards.hpp"

#include <gtest/gtest.h>

#include "failure.hpp"

namespace syncbn::cli {
namespace {

using Sizes = std::vector<Index>;

TEST(Shards, NearEvenGivesTheRestToTheFirstRanks) {
  EXPECT_EQ(even_shards(10, 4), (Sizes{3, 3, 2, 2}));
  EXPECT_EQ(even_shards(8, 4), (Sizes{2, 2, 2, 2}));
  EXPECT_EQ(even_shards(2, 3), (Sizes{1, 1, 0}));
  EXPECT_EQ(even_shards(0, 2), (Sizes{0, 0}));
}

TEST(Shards, ListsAreReadStrictly) {
  EXPECT_EQ(parse_shards("5,0,11"), (Sizes{5, 0, 11}));
  EXPECT_EQ(parse_shards("9223372036854775807"), (Sizes{9223372036854775807}));
  for (const char* text :
       {"", ",", "5,", ",5", "5,,1", "-1", "+1", " 5", "5 ", "5.0", "0x5", "9223372036854775808", "five"}) {
    EXPECT_THROW(parse_shards(text), LocalFailure) << text;
  }
}

TEST(Shards, MustBeOnePerRankAndAddUp) {
  EXPECT_EQ(shards_for("5,0,11", 16, 3), (Sizes{5, 0, 11}));
  EXPECT_EQ(shards_for("", 16, 3), (Sizes{6, 5, 5}));
  for (const char* text : {"5,11", "5,0,11,0", "5,0,10", "5,0,12", "9223372036854775807,9223372036854775807,18"}) {
    EXPECT_THROW(shards_for(text, 16, 3), LocalFailure) << text;
  }
}

TEST(Shards, RangesFollowOneAnother) {
  const Sizes shards{5, 0, 11};
  Index next = 0;
  for (int rank = 0; rank < 3; ++rank) {
    const RowRange rows = rows_of_rank(shards, rank);
    EXPECT_EQ(rows.first, next);
    EXPECT_EQ(rows.count, shards[static_cast<std::size_t>(rank)]);
    next += rows.count;
  }
}

TEST(Shards, TextOfAManyRanksIsShort) {
  EXPECT_EQ(shards_text({5, 0, 11}), "5, 0, 11");
  EXPECT_EQ(shards_text(Sizes(17, 1)), "1, 1, 1, 1, 1, 1, 1, 1, ..., 1, 1, 1, 1, 1, 1, 1, 1");
  EXPECT_EQ(shards_text(Sizes(1000, 1)), shards_text(Sizes(17, 1)));
}

}  // namespace
}  // namespace syncbn::cli
