// SPDX-License-Identifier: MIT
// Merging of headers: whatever tree MPI merges in, the same bytes, and the right rank is blamed.
#include "comm/message.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace syncbn::comm {
namespace {

using Headers = std::vector<MessageHeader>;

constexpr std::int32_t kNobody = MessageHeader::kNobody;
constexpr RoundKey kInStep{2, 7, 30};

MessageHeader merged(const MessageHeader& in, MessageHeader inout) {
  merge_header(reinterpret_cast<const std::byte*>(&in), reinterpret_cast<std::byte*>(&inout));
  return inout;
}

bool same_bytes(const MessageHeader& a, const MessageHeader& b) { return std::memcmp(&a, &b, sizeof a) == 0; }

MessageHeader header_of(std::int32_t rank, const RoundKey& key) {
  MessageHeader header;
  header.key = key;
  header.first_rank = rank;
  return header;
}

/// What ranks that are not in step may be doing. The first two are in step: with data, and without.
const RoundKey kKeys[] = {
    kInStep,
    {RoundKey::kAnyPass, 7, 30},  // in step
    {3, 7, 30},
    {2, 8, 30},
    {2, 7, 29},
    {2, 7, 31},  // another pass, layer or step
    {3, 8, 4},
    {RoundKey::kAnyPass, 8, 30},
    {RoundKey::kAnyPass, 7, 31},
};

Headers random_headers(int ranks, std::mt19937& dice) {
  const auto below = [&](std::uint32_t n) { return static_cast<std::size_t>(dice() % n); };
  // All in step, all with data or not; some out of step; anything.
  const std::uint32_t keys = std::vector<std::uint32_t>{1, 2, 4, 9}[below(4)];
  const bool is_shifted = below(4) == 0;  // nobody does what kInStep says
  Headers headers;
  for (std::int32_t rank = 0; rank < ranks; ++rank) {
    MessageHeader header = header_of(rank, kKeys[is_shifted ? 8 - below(keys) : below(keys)]);
    if (below(4) == 0) {
      header.rank_with_problem = rank;
    } else if (!header.key.is_any_pass()) {
      header.count = static_cast<std::int64_t>(below(1000));
      if (header.count > 0) header.rank_with_type[below(2) == 0 ? 0 : below(MessageHeader::kTypes)] = rank;
    }
    headers.push_back(header);
  }
  return headers;
}

/// The definition, over all ranks at once.
MessageHeader right_answer(const Headers& headers) {
  std::vector<std::size_t> order(headers.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_partition(order.begin(), order.end(), [&](std::size_t r) { return !headers[r].key.is_any_pass(); });
  const RoundKey first = headers[order.front()].key;
  MessageHeader right = header_of(headers[order.front()].first_rank, first);
  for (const std::size_t r : order) {
    const RoundKey& key = headers[r].key;
    const bool same_round = key.channel == first.channel && key.sequence == first.sequence;
    const bool in_step = same_round && (key.pass == first.pass || key.pass == RoundKey::kAnyPass);
    if (in_step) continue;
    right.rank_out_of_step = static_cast<std::int32_t>(r);
    right.other_key = key;
    break;
  }
  for (const MessageHeader& header : headers) {
    right.count += header.count;
    right.rank_with_problem = std::min(right.rank_with_problem, header.rank_with_problem);
    for (std::size_t t = 0; t < MessageHeader::kTypes; ++t) {
      right.rank_with_type[t] = std::min(right.rank_with_type[t], header.rank_with_type[t]);
    }
  }
  return right;
}

std::string text_of(const MessageHeader& h) {
  return "first rank " + std::to_string(h.first_rank) + ", pass " + std::to_string(h.key.pass) + ", channel " +
         std::to_string(h.key.channel) + ", sequence " + std::to_string(h.key.sequence) + ", count " +
         std::to_string(h.count) + ", out of step " + std::to_string(h.rank_out_of_step) + ", problem " +
         std::to_string(h.rank_with_problem);
}

/// Calls visit(merged header) for every way to merge them two by two, from either side.
void for_each_tree(const Headers& headers, const std::function<void(const MessageHeader&)>& visit) {
  if (headers.size() == 1) return visit(headers.front());
  for (std::size_t a = 0; a < headers.size(); ++a) {
    for (std::size_t b = 0; b < headers.size(); ++b) {
      if (a == b) continue;
      Headers rest = headers;
      rest[b] = merged(headers[a], headers[b]);
      rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(a));
      for_each_tree(rest, visit);
    }
  }
}

MessageHeader merged_in_random_tree(Headers headers, std::mt19937& dice) {
  while (headers.size() > 1) {
    std::shuffle(headers.begin(), headers.end(), dice);
    headers[0] = merged(headers.back(), headers[0]);
    headers.pop_back();
  }
  return headers.front();
}

TEST(MergeHeader, EveryTreeOfUpToFiveRanksGivesTheRightBytes) {
  for (int ranks = 2; ranks <= 5; ++ranks) {
    for (std::uint32_t seed = 1; seed <= 150; ++seed) {
      std::mt19937 dice(seed);
      const Headers headers = random_headers(ranks, dice);
      const MessageHeader right = right_answer(headers);
      int wrong = 0;
      std::string example;
      for_each_tree(headers, [&](const MessageHeader& got) {
        if (same_bytes(got, right)) return;
        ++wrong;
        example = text_of(got);
      });
      EXPECT_EQ(wrong, 0) << ranks << " ranks, seed " << seed << "; got " << example << "; want " << text_of(right);
    }
  }
}

TEST(MergeHeader, RandomTreesOfManyRanksGiveTheRightBytes) {
  for (const int ranks : {6, 7, 16, 33}) {
    for (std::uint32_t seed = 1; seed <= 200; ++seed) {
      std::mt19937 dice(seed);
      const Headers headers = random_headers(ranks, dice);
      const MessageHeader right = right_answer(headers);
      for (int tree = 0; tree < 20; ++tree) {
        const MessageHeader got = merged_in_random_tree(headers, dice);
        ASSERT_TRUE(same_bytes(got, right))
            << ranks << " ranks, seed " << seed << "; got " << text_of(got) << "; want " << text_of(right);
      }
    }
  }
}

TEST(MergeHeader, NobodyIsBlamedForHavingNoData) {
  const MessageHeader absent = header_of(0, {RoundKey::kAnyPass, 7, 30});
  const MessageHeader got = merged(absent, header_of(1, kInStep));
  EXPECT_EQ(got.rank_out_of_step, kNobody);
  EXPECT_EQ(got.first_rank, 1) << "the key has to be that of a rank with data";
  EXPECT_EQ(pass_of(reinterpret_cast<const std::byte*>(&got)), kInStep.pass);
}

TEST(MergeHeader, WithoutAnyDataThePassIsAny) {
  const MessageHeader got =
      merged(header_of(1, {RoundKey::kAnyPass, 7, 30}), header_of(0, {RoundKey::kAnyPass, 7, 30}));
  EXPECT_EQ(pass_of(reinterpret_cast<const std::byte*>(&got)), RoundKey::kAnyPass);
  EXPECT_EQ(got.rank_out_of_step, kNobody);
}

TEST(Message, BodyIsAlignedAndStorageIsKept) {
  Message message;
  message.resize_body(1000);
  const std::byte* before = message.body();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(before) % 8, 0u);
  EXPECT_EQ(message.bytes(), sizeof(MessageHeader) + 1000);
  message.resize_body(40);
  EXPECT_EQ(message.body(), before);
  EXPECT_EQ(message.body_bytes(), 40u);
}

}  // namespace
}  // namespace syncbn::comm
