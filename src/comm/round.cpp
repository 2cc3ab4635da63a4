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

std::int64_t Rounds::merge(RoundKey key, const Share& share, Message& message, Merge merge_body_and_header,
                           const std::optional<Problem>& problem) {
  key.sequence = sequence_++;
  if (size() == 1) {
    if (problem) throw_error(problem->code, problem->text);
    return share.count;
  }
  MessageHeader header;
  header.key = key;
  header.lowest_rank = rank();
  if (!problem) {
    header.count = share.count;
    if (share.type) header.rank_with_type[static_cast<std::size_t>(*share.type)] = rank();
  } else {
    header.rank_with_problem = rank();
    std::fill_n(message.body(), message.body_bytes(), std::byte{0});
  }
  std::memcpy(message.data(), &header, sizeof header);
  transport_->all_reduce(message.data(), message.bytes(), merge_body_and_header);
  std::memcpy(&header, message.data(), sizeof header);

  if (header.rank_with_problem != MessageHeader::kNobody) throw_problem_of(header.rank_with_problem, problem);
  if (header.rank_out_of_step != MessageHeader::kNobody) throw_out_of_step(header);
  check_types(header);
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
