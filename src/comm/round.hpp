// SPDX-License-Identifier: MIT
// One round: every rank brings a message or a problem; all leave with the merged message, or with the same error.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "comm/message.hpp"
#include "comm/transport.hpp"
#include "comm/watch.hpp"
#include "syncbn/error.hpp"

namespace syncbn::comm {

class Group;

/// What one rank alone found wrong. It still takes part in the round.
struct Problem {
  ErrorCode code = ErrorCode::none;
  std::string text;
};

/// How the rounds of a channel speak of themselves in errors: "[BatchNorm 'bn1' forward]".
using Describe = std::function<std::string(const RoundKey&)>;

/// What a rank's message speaks for.
struct Share {
  std::int64_t count = 0;        ///< Values.
  std::optional<DataType> type;  ///< Of the tensors that they come from; must be the same on all ranks that have any.
};

/// What a rank that has no data left does in rounds that it knows nothing of.
class Absent {
 public:
  /// body <- a contribution of nothing, to whatever pass.
  virtual void contribute_nothing(std::byte* body) = 0;
  /// As the others do after this round. May throw as they do.
  virtual void finish(std::int32_t pass, std::int64_t count) = 0;
  virtual Merge merge() const = 0;

 protected:
  ~Absent() = default;
};

/// The rounds of one channel, counted. One is in flight at most.
class Rounds final : private Awaited {
 public:
  /// Opens a channel. Collective. `absent`: answers for this rank when it has joined; must live as long.
  Rounds(Group& group, Describe describe, Absent* absent);
  ~Rounds();
  Rounds(const Rounds&) = delete;
  Rounds& operator=(const Rounds&) = delete;

  int rank() const noexcept;
  int size() const noexcept;
  std::int32_t number() const noexcept { return number_; }
  std::string describe(const RoundKey& key) const { return describe_(key); }
  Message& message() noexcept { return message_; }
  const Message& message() const noexcept { return message_; }

  /// Sends this rank's message on its way, or, if there is a problem, that. (The message must have its size even then.)
  /// Collective: one message, none if the group is one rank. Throws only if the group has failed.
  void begin(std::int32_t pass, const Share& share, Merge merge_body_and_header, std::optional<Problem> problem);
  bool is_in_flight() const noexcept { return is_in_flight_; }

  /// Moves things on without waiting; true if the answer is here.
  bool progress();

  /// Waits for the answer. message() is then the merge of all ranks' messages; returns the sum of their counts. If a rank
  /// had a problem, was in another round or had tensors of another type, then all ranks throw the same error (after a
  /// second message, if it was a problem).
  std::int64_t finish();

  /// begin() and finish().
  std::int64_t merge(std::int32_t pass, const Share& share, Merge merge_body_and_header,
                     std::optional<Problem> problem) {
    begin(pass, share, merge_body_and_header, std::move(problem));
    return finish();
  }

  /// For a rank that has joined: begins a round with nothing, if none is in flight that was begun so.
  void begin_absent();
  /// Ends a round that has arrived. False if all ranks have joined: it was the last, and is_over() is true.
  bool finish_absent();
  bool is_over() const noexcept { return is_over_; }
  /// All channels are over: ranks may bring data again. Returns the lowest rank that had any in the last round that had
  /// some since the last time; -1: there was none.
  int end_join() noexcept;
  /// Has this rank begun a round with data that it has not finished?
  bool is_in_use() const noexcept { return is_in_flight_ && !is_absent_; }
  std::string describe() const { return describe_(key_); }
  /// Would a rank that left `channel` after `rounds` rounds be missed here?
  bool waits_for(std::int32_t channel, std::int64_t rounds) const { return needs(channel, rounds); }

 private:
  struct WireProblem;

  bool test() override { return channel_->test(); }
  std::string place() const override;
  std::int32_t channel() const override { return number_; }
  bool needs(std::int32_t channel, std::int64_t rounds) const override;

  void send(const MessageHeader& filled, Merge merge_messages);
  MessageHeader receive();
  void end_round();
  void fetch_problem_of(int rank);
  [[noreturn]] void throw_problem_of(int rank) const;
  [[noreturn]] void throw_out_of_step(const MessageHeader& header);
  void check_types(const MessageHeader& header) const;

  Group& group_;
  Describe describe_;
  Absent* absent_;
  std::int32_t number_;  // of the channel
  std::unique_ptr<Channel> channel_;
  Message message_;
  std::unique_ptr<WireProblem> wire_;
  RoundKey key_;  // of the round in flight, or of the next
  std::int64_t own_count_ = 0;
  std::optional<Problem> problem_;
  bool is_in_flight_ = false;
  bool is_absent_ = false;  // in the round in flight
  bool is_over_ = false;
  int last_rank_with_data_ = -1;
  int exceptions_at_begin_;
};

}  // namespace syncbn::comm
