// SPDX-License-Identifier: MIT
#include "comm/round.hpp"

#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>

#include "comm/group.hpp"
#include "comm/keep.hpp"

namespace syncbn::comm {

/// A problem as it travels.
struct Rounds::WireProblem {
  std::int32_t code = 0;
  char text[508] = {};
};

Rounds::Rounds(Group& group, Describe describe, Absent* absent)
    : group_(group),
      describe_(std::move(describe)),
      absent_(absent),
      number_(group.next_channel_number()),
      channel_(group.open_channel(describe_({}))),
      wire_(std::make_unique<WireProblem>()),
      exceptions_at_begin_(std::uncaught_exceptions()) {
  key_.channel = number_;
  if (absent_ != nullptr) group_.enter(*this);
}

/// A channel that an exception destroys may get messages of ranks that go on, so it is not freed either.
Rounds::~Rounds() {
  if (absent_ != nullptr) group_.leave(*this);
  const bool is_thrown = std::uncaught_exceptions() > exceptions_at_begin_;
  if (is_thrown && size() > 1 && !group_.watch().has_failed()) {
    group_.watch().say_left(number_, key_.sequence, number_ == kOwnChannel ? "[Communicator]" : describe_({}));
  }
  if (is_in_flight_ || is_thrown || group_.watch().has_failed()) {
    channel_->give_up();
    keep_for_ever(std::move(channel_));
    keep_for_ever(std::move(message_));
    keep_for_ever(std::move(wire_));
  }
}

int Rounds::rank() const noexcept { return group_.rank(); }
int Rounds::size() const noexcept { return group_.size(); }

std::string Rounds::place() const { return describe_(key_) + " at round " + std::to_string(key_.sequence); }

bool Rounds::needs(std::int32_t channel, std::int64_t rounds) const {
  return channel == number_ && rounds <= key_.sequence;
}

void Rounds::begin(std::int32_t pass, const Share& share, Merge merge_body_and_header, std::optional<Problem> problem) {
  group_.watch().throw_if_failed();
  key_.pass = pass;
  own_count_ = share.count;
  problem_ = std::move(problem);
  is_in_flight_ = true;
  is_absent_ = false;
  if (size() == 1) return;

  MessageHeader header;
  if (!problem_) {
    header.count = share.count;
    if (share.type) header.rank_with_type[static_cast<std::size_t>(*share.type)] = rank();
  } else {
    header.rank_with_problem = rank();
    std::fill_n(message_.body(), message_.body_bytes(), std::byte{0});
  }
  send(header, merge_body_and_header);
}

void Rounds::send(const MessageHeader& filled, Merge merge_messages) {
  MessageHeader header = filled;
  header.key = key_;
  header.first_rank = rank();
  std::memcpy(message_.data(), &header, sizeof header);
  group_.watch().call(*this, [&] {
    channel_->start_merge(message_.data(), message_.bytes(), merge_messages, group_.options().exchange);
  });
}

bool Rounds::progress() {
  if (!is_in_flight_ || size() == 1) return true;
  return group_.watch().call(*this, [&] { return channel_->test(); });
}

/// The header of the merged message. The round ends, at the latest with the second message. Throws if anything was wrong
/// with it.
MessageHeader Rounds::receive() {
  MessageHeader header;
  std::memcpy(&header, message_.data(), sizeof header);
  if (header.rank_with_problem != MessageHeader::kNobody) fetch_problem_of(header.rank_with_problem);
  end_round();
  if (header.rank_with_problem != MessageHeader::kNobody) throw_problem_of(header.rank_with_problem);
  if (header.rank_out_of_step != MessageHeader::kNobody) throw_out_of_step(header);
  check_types(header);
  if (!header.key.is_any_pass()) last_rank_with_data_ = header.first_rank;
  return header;
}

void Rounds::end_round() {
  ++key_.sequence;
  is_in_flight_ = false;
}

std::int64_t Rounds::finish() {
  if (size() == 1) {
    end_round();
    if (problem_) throw_error(problem_->code, problem_->text);
    return own_count_;
  }
  group_.watch().wait(*this);
  return receive().count;
}

void Rounds::begin_absent() {
  if (is_in_flight_) return;
  key_.pass = RoundKey::kAnyPass;
  problem_.reset();
  is_in_flight_ = is_absent_ = true;
  absent_->contribute_nothing(message_.body());
  send({}, absent_->merge());
}

bool Rounds::finish_absent() {
  const MessageHeader header = receive();
  is_over_ = header.key.is_any_pass();
  if (!is_over_) absent_->finish(header.key.pass, header.count);
  return !is_over_;
}

int Rounds::end_join() noexcept {
  is_over_ = false;
  return std::exchange(last_rank_with_data_, -1);
}

/// wire_ <- what that rank has to say.
void Rounds::fetch_problem_of(int rank_with_problem) {
  *wire_ = {};
  if (rank_with_problem == rank()) {
    wire_->code = static_cast<std::int32_t>(problem_->code);
    problem_->text.copy(wire_->text, sizeof wire_->text - 1);
  }
  group_.watch().call(*this, [&] {
    channel_->start_broadcast(reinterpret_cast<std::byte*>(wire_.get()), sizeof *wire_, rank_with_problem);
  });
  group_.watch().wait(*this);
}

void Rounds::throw_problem_of(int rank_with_problem) const {
  throw_error(
      static_cast<ErrorCode>(wire_->code),
      std::string(wire_->text) + " (rank " + std::to_string(rank_with_problem) + " of " + std::to_string(size()) + ")");
}

void Rounds::throw_out_of_step(const MessageHeader& header) {
  const auto at = [&](int rank, const RoundKey& key) {
    return "rank " + std::to_string(rank) + " of " + std::to_string(size()) + " is in " +
           group_.describe(key, describe_) + " at round " + std::to_string(key.sequence);
  };
  throw MismatchError("the ranks are out of step: " + at(header.first_rank, header.key) + ", " +
                      at(header.rank_out_of_step, header.other_key));
}

void Rounds::check_types(const MessageHeader& header) const {
  std::string ranks;
  int types = 0;
  for (std::size_t t = 0; t < MessageHeader::kTypes; ++t) {
    if (header.rank_with_type[t] == MessageHeader::kNobody) continue;
    ranks += std::string(types++ == 0 ? "" : ", ") + name_of(static_cast<DataType>(t)) + " on rank " +
             std::to_string(header.rank_with_type[t]);
  }
  if (types <= 1) return;
  throw MismatchError(describe_(header.key) + " the ranks' tensors differ in type: " + ranks + " of " +
                      std::to_string(size()));
}

}  // namespace syncbn::comm
