// SPDX-License-Identifier: MIT
#include "comm/round.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace syncbn::comm {
namespace {

/// A problem as it travels.
struct WireProblem {
  std::int32_t code;
  char text[508];
};

std::string of_ranks(int rank, int size) {
  return " (rank " + std::to_string(rank) + " of " + std::to_string(size) + ")";
}

}  // namespace

Rounds::Rounds(std::unique_ptr<Transport> transport, Describe describe)
    : transport_(std::move(transport)), describe_(std::move(describe)) {}

std::int64_t Rounds::merge(RoundKey key, std::int64_t count, Message& message, Merge merge_body_and_header,
                           const std::optional<Problem>& problem) {
  key.sequence = sequence_++;
  if (size() == 1) {
    if (problem) throw_error(problem->code, problem->text);
    return count;
  }
  MessageHeader header;
  header.key = key;
  header.count = problem ? 0 : count;
  header.lowest_rank = rank();
  if (problem) {
    header.rank_with_problem = rank();
    std::fill_n(message.body(), message.body_bytes(), std::byte{0});
  }
  std::memcpy(message.data(), &header, sizeof header);
  transport_->all_reduce(message.data(), message.bytes(), merge_body_and_header);
  std::memcpy(&header, message.data(), sizeof header);

  if (header.rank_with_problem != MessageHeader::kNobody) throw_problem_of(header.rank_with_problem, problem);
  if (header.rank_out_of_step != MessageHeader::kNobody) throw_out_of_step(header);
  return header.count;
}

void Rounds::throw_problem_of(int rank_with_problem, const std::optional<Problem>& own) {
  WireProblem wire = {};
  if (rank_with_problem == rank()) {
    wire.code = static_cast<std::int32_t>(own->code);
    own->text.copy(wire.text, sizeof wire.text - 1);
  }
  transport_->broadcast(reinterpret_cast<std::byte*>(&wire), sizeof wire, rank_with_problem);
  throw_error(static_cast<ErrorCode>(wire.code), wire.text + of_ranks(rank_with_problem, size()));
}

void Rounds::throw_out_of_step(const MessageHeader& header) {
  const auto at = [&](int rank, const RoundKey& key) {
    return "rank " + std::to_string(rank) + " of " + std::to_string(size()) + " is in " + describe_(key) +
           " at round " + std::to_string(key.sequence);
  };
  throw MismatchError("the ranks are out of step: " + at(header.lowest_rank, header.key) + ", " +
                      at(header.rank_out_of_step, header.other_key));
}

}  // namespace syncbn::comm
