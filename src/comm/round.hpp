// SPDX-License-Identifier: MIT
// One round: every rank brings a message or a problem; all leave with the merged message, or with the same error.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/message.hpp"
#include "comm/transport.hpp"
#include "syncbn/error.hpp"

namespace syncbn::comm {

/// What one rank alone found wrong. It still takes part in the round.
struct Problem {
  ErrorCode code = ErrorCode::none;
  std::string text;
};

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

/// How the rounds of a group speak of themselves in errors: "[BatchNorm 'bn1' forward]".
using Describe = std::function<std::string(const RoundKey&)>;

/// What a rank's message speaks for.
struct Share {
  std::int64_t count = 0;        ///< Values.
  std::optional<DataType> type;  ///< Of the tensors that they come from; must be the same on all ranks that have any.
};

/// The rounds of one group of ranks, counted.
class Rounds {
 public:
  Rounds(std::unique_ptr<Transport> transport, Describe describe);

  int rank() const noexcept { return transport_->rank(); }
  int size() const noexcept { return transport_->size(); }

  /// Merges the messages of all ranks and returns the sum of their counts. `problem`, if there is one, replaces this
  /// rank's message (the body must still have its size).
  ///
  /// Collective: one all-reduce; no message if the group is one rank. If a rank had a problem, was in another round or
  /// had tensors of another type, then all ranks throw the same error (after a second message, if it was a problem).
  std::int64_t merge(RoundKey key, const Share& share, Message& message, Merge merge_body_and_header,
                     const std::optional<Problem>& problem);

  Transport& transport() noexcept { return *transport_; }

 private:
  [[noreturn]] void throw_problem_of(int rank, const std::optional<Problem>& own);
  [[noreturn]] void throw_out_of_step(const MessageHeader& header);
  void check_types(const MessageHeader& header) const;

  std::unique_ptr<Transport> transport_;
  Describe describe_;
  std::int64_t sequence_ = 0;
};

}  // namespace syncbn::comm
