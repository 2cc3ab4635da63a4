// SPDX-License-Identifier: MIT
#include "comm/message.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace syncbn::comm {
namespace {

void flag_out_of_step(MessageHeader& header, std::int32_t rank, const RoundKey& key) {
  if (rank >= header.rank_out_of_step) return;
  header.rank_out_of_step = rank;
  header.other_key = key;
}

}  // namespace

void merge_header(const std::byte* in, std::byte* inout) {
  MessageHeader low;
  MessageHeader high;
  std::memcpy(&low, in, sizeof low);
  std::memcpy(&high, inout, sizeof high);
  if (high.lowest_rank < low.lowest_rank) std::swap(low, high);

  if (high.key != low.key) flag_out_of_step(low, high.lowest_rank, high.key);
  if (high.rank_out_of_step != MessageHeader::kNobody) flag_out_of_step(low, high.rank_out_of_step, high.other_key);
  low.rank_with_problem = std::min(low.rank_with_problem, high.rank_with_problem);
  for (std::size_t t = 0; t < MessageHeader::kTypes; ++t) {
    low.rank_with_type[t] = std::min(low.rank_with_type[t], high.rank_with_type[t]);
  }
  low.count += high.count;
  std::memcpy(inout, &low, sizeof low);
}

}  // namespace syncbn::comm
