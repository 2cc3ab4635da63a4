// SPDX-License-Identifier: MIT
// What every message begins with: who is doing which step, how many values it speaks for, and whether somebody has a
// problem. It rides in the message that is sent anyway.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "syncbn/tensor_view.hpp"

namespace syncbn::comm {

/// Which round a rank is in. Equal on all ranks unless their programs differ.
struct RoundKey {
  /// Of a rank that has no data left and answers whatever the others do.
  static constexpr std::int32_t kAnyPass = 0;

  std::int32_t pass = 0;      ///< The caller's own number for the kind of round; > 0.
  std::int32_t channel = 0;   ///< The channel's number in its group.
  std::int64_t sequence = 0;  ///< How many rounds this channel has had before.
  friend bool operator==(const RoundKey&, const RoundKey&) = default;

  bool is_any_pass() const { return pass == kAnyPass; }
};

/// 72 bytes in front of the body. Merging headers keeps: the key of the first rank; the first rank whose key does not go
/// with it, with its key; the lowest rank that has a problem of its own; the lowest rank with tensors of each type; the
/// sum of the counts. First is the lowest rank of those that have data, then the lowest of the others. The result does
/// not depend on the order of merging: the first rank out of step is found whatever ranks it meets before, because a
/// rank that is in step is flagged only by an earlier one that is not.
struct MessageHeader {
  static constexpr std::int32_t kNobody = INT32_MAX;
  static constexpr std::size_t kTypes = 4;  ///< DataTypes.

  RoundKey key;
  RoundKey other_key;           ///< Of `rank_out_of_step`.
  std::int64_t count = 0;       ///< Values that the body speaks for.
  std::int32_t first_rank = 0;  ///< Of the ranks merged into this message; owner of `key`.
  std::int32_t rank_out_of_step = kNobody;
  std::int32_t rank_with_problem = kNobody;
  std::int32_t rank_with_type[kTypes] = {kNobody, kNobody, kNobody, kNobody};  ///< By DataType.
  std::int32_t reserved = 0;
};
static_assert(sizeof(MessageHeader) == 72, "8-byte multiple without padding: the body behind it is aligned");
static_assert(std::is_trivially_copyable_v<MessageHeader>);

/// inout <- in merged with inout. Commutative and associative, exactly.
void merge_header(const std::byte* in, std::byte* inout);

/// The pass of a message, merged or not; kAnyPass if only ranks without data have spoken.
std::int32_t pass_of(const std::byte* message);

/// A message under construction: header and body in one piece of memory, reused from round to round.
class Message {
 public:
  /// Makes room for a body of `bytes`; keeps the storage if it is large enough. The body's content is undefined.
  void resize_body(std::size_t bytes) { storage_.resize(sizeof(MessageHeader) + bytes); }

  std::byte* data() noexcept { return storage_.data(); }
  std::size_t bytes() const noexcept { return storage_.size(); }
  /// 8-byte aligned.
  std::byte* body() noexcept { return storage_.data() + sizeof(MessageHeader); }
  const std::byte* body() const noexcept { return storage_.data() + sizeof(MessageHeader); }
  std::size_t body_bytes() const noexcept { return storage_.size() - sizeof(MessageHeader); }

 private:
  std::vector<std::byte> storage_ = std::vector<std::byte>(sizeof(MessageHeader));
};

}  // namespace syncbn::comm
