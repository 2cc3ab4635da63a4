// SPDX-License-Identifier: MIT
// What every message begins with: who is doing which step, how many values it speaks for, and whether somebody has a
// problem. It rides in the message that is sent anyway.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "syncbn/tensor_view.hpp"

namespace syncbn::comm {

/// Which round a rank is in. Equal on all ranks unless their programs differ.
struct RoundKey {
  std::int32_t pass = 0;      ///< The caller's own number for the kind of round.
  std::int32_t element = 0;   ///< The caller's own number for what the body's values were made of.
  std::int64_t sequence = 0;  ///< How many rounds this group has had before.
  friend bool operator==(const RoundKey&, const RoundKey&) = default;
};

/// 72 bytes in front of the body. Merging headers keeps: the key of the lowest rank; the lowest rank whose key differs
/// from it, with its key; the lowest rank that has a problem of its own; the lowest rank with tensors of each type; the
/// sum of the counts. The result does not depend on the order of merging: the lowest rank out of step is found whatever
/// ranks it meets first, because a rank that is in step is flagged only by a lower one that is not.
struct MessageHeader {
  static constexpr std::int32_t kNobody = INT32_MAX;
  static constexpr std::size_t kTypes = 4;  ///< DataTypes.

  RoundKey key;
  RoundKey other_key;            ///< Of `rank_out_of_step`.
  std::int64_t count = 0;        ///< Values that the body speaks for.
  std::int32_t lowest_rank = 0;  ///< The lowest rank merged into this message; owner of `key`.
  std::int32_t rank_out_of_step = kNobody;
  std::int32_t rank_with_problem = kNobody;
  std::int32_t rank_with_type[kTypes] = {kNobody, kNobody, kNobody, kNobody};  ///< By DataType.
  std::int32_t reserved = 0;
};
static_assert(sizeof(MessageHeader) == 72, "8-byte multiple without padding: the body behind it is aligned");
static_assert(std::is_trivially_copyable_v<MessageHeader>);

/// inout <- in merged with inout. Commutative and associative, exactly.
void merge_header(const std::byte* in, std::byte* inout);

}  // namespace syncbn::comm
