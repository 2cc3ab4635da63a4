// SPDX-License-Identifier: MIT
// Pledges: who differs from rank 0, found in one message by every exchange.
#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "comm/group.hpp"
#include "layer/errors.hpp"

namespace syncbn::testing {
namespace {

using comm::Group;
using comm::OwnPass;

Communicator world_by(Exchange exchange) {
  CommunicatorOptions options;
  options.exchange = exchange;
  return Communicator(MPI_COMM_WORLD, options);
}

/// 216 bytes that differ from others' only in the last one, or also in the first.
std::vector<unsigned char> words(int value) {
  std::vector<unsigned char> bytes(Group::kPledgeBytes, 'x');
  bytes.back() = static_cast<unsigned char>(value);
  if (value == 2) bytes.front() = 'y';
  return bytes;
}

/// values[r] is what rank r pledges.
void expect_found(Group& group, const std::vector<int>& values) {
  const auto mine = words(values[static_cast<std::size_t>(group.rank())]);
  std::int64_t count = 0;
  const auto found =
      group.pledge(OwnPass::split, mine.data(), mine.size(), {group.rank() + 1, std::nullopt}, std::nullopt, &count);
  const auto ranks = static_cast<std::int64_t>(values.size());
  EXPECT_EQ(count, ranks * (ranks + 1) / 2);
  const auto other = std::find_if(values.begin(), values.end(), [&](int v) { return v != values.front(); });
  ASSERT_EQ(found.has_value(), other != values.end());
  if (!found) return;
  EXPECT_EQ(found->rank, other - values.begin());
  EXPECT_EQ(std::memcmp(found->first, words(values.front()).data(), Group::kPledgeBytes), 0);
  EXPECT_EQ(std::memcmp(found->other, words(*other).data(), Group::kPledgeBytes), 0);
}

TEST(Pledge, TheLowestRankThatDiffersFromRankZeroIsFound) {
  for (const Exchange exchange : {Exchange::all_reduce, Exchange::all_gather}) {
    const Communicator world = world_by(exchange);
    std::vector<int> values(static_cast<std::size_t>(world.size()));
    for (std::size_t r = 0; r < values.size(); ++r) values[r] = static_cast<int>(r % 3);
    std::sort(values.begin(), values.end());
    do {
      expect_found(world.group(), values);
    } while (std::next_permutation(values.begin(), values.end()));
    std::fill(values.begin(), values.end(), 1);
    expect_found(world.group(), values);
  }
}

TEST(Pledge, AProblemIsToldInsteadAndTheGroupGoesOn) {
  for (const Exchange exchange : {Exchange::all_reduce, Exchange::all_gather}) {
    const Communicator world = world_by(exchange);
    for (int culprit = 0; culprit < world.size(); ++culprit) {
      std::optional<comm::Problem> problem;  // of two ranks; the lower one speaks
      if (world.rank() == culprit || world.rank() == culprit + 1) {
        problem = comm::Problem{ErrorCode::shape, "too many of rank " + std::to_string(world.rank())};
      }
      const int mine = world.rank();
      const Caught caught = error_of([&] { world.group().pledge(OwnPass::split, &mine, sizeof mine, {}, problem); });
      expect_same_error_everywhere(caught, ErrorCode::shape,
                                   {"too many of rank " + std::to_string(culprit), of_rank(culprit)});
    }
    expect_found(world.group(), std::vector<int>(static_cast<std::size_t>(world.size()), 2));
  }
}

}  // namespace
}  // namespace syncbn::testing
