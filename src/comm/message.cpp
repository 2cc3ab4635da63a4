// SPDX-License-Identifier: MIT
#include "comm/message.hpp"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

namespace syncbn::comm {
namespace {

/// The order of ranks: those with data before the others.
bool is_before(const RoundKey& key_a, std::int32_t rank_a, const RoundKey& key_b, std::int32_t rank_b) {
  return std::make_tuple(key_a.is_any_pass(), rank_a) < std::make_tuple(key_b.is_any_pass(), rank_b);
}

/// May a rank with `key` be in the round of an earlier rank?
bool goes_with(const RoundKey& key, const RoundKey& earlier) {
  if (!key.is_any_pass()) return key == earlier;
  return key.channel == earlier.channel && key.sequence == earlier.sequence;
}

void flag_out_of_step(MessageHeader& header, std::int32_t rank, const RoundKey& key) {
  const bool is_first = header.rank_out_of_step == MessageHeader::kNobody ||
                        is_before(key, rank, header.other_key, header.rank_out_of_step);
  if (!is_first) return;
  header.rank_out_of_step = rank;
  header.other_key = key;
}

}  // namespace

void merge_header(const std::byte* in, std::byte* inout) {
  MessageHeader first;
  MessageHeader second;
  std::memcpy(&first, in, sizeof first);
  std::memcpy(&second, inout, sizeof second);
  if (is_before(second.key, second.first_rank, first.key, first.first_rank)) std::swap(first, second);

  if (!goes_with(second.key, first.key)) flag_out_of_step(first, second.first_rank, second.key);
  if (second.rank_out_of_step != MessageHeader::kNobody) {
    flag_out_of_step(first, second.rank_out_of_step, second.other_key);
  }
  first.rank_with_problem = std::min(first.rank_with_problem, second.rank_with_problem);
  for (std::size_t t = 0; t < MessageHeader::kTypes; ++t) {
    first.rank_with_type[t] = std::min(first.rank_with_type[t], second.rank_with_type[t]);
  }
  first.count += second.count;
  std::memcpy(inout, &first, sizeof first);
}

std::int32_t pass_of(const std::byte* message) {
  RoundKey key;
  std::memcpy(&key, message, sizeof key);
  return key.pass;
}

}  // namespace syncbn::comm
