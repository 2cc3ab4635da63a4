// SPDX-License-Identifier: MIT
#include "bench_comm_model.hpp"

#include <algorithm>
#include <bit>

namespace syncbn::cli::bench {
namespace {

double doubling_seconds(int ranks, double send, double merge) {
  const auto size = static_cast<unsigned>(ranks);
  const int exchanges = std::bit_width(size) - 1;
  // Ranks beyond the power of two hand their message to a partner, and get the result from it.
  const double folding = std::has_single_bit(size) ? 0.0 : 2.0 * send + merge;
  return exchanges * (send + merge) + folding;
}

double tree_seconds(int ranks, double send, double merge) {
  const int levels = std::bit_width(static_cast<unsigned>(ranks) - 1);
  return levels * (2.0 * send + merge);
}

double linear_seconds(int ranks, double send, double merge, const Link& link, double transfer) {
  const double between_messages = std::max({link.gap, 2.0 * link.overhead, transfer});
  return send + (ranks - 2) * between_messages + (ranks - 1) * merge;
}

}  // namespace

double predicted_seconds(Algorithm algorithm, int ranks, const Link& link, const MessageCost& message) {
  if (ranks <= 1) return 0.0;
  const double transfer = static_cast<double>(message.bytes) * link.gap_per_byte;
  const double send = link.latency + 2.0 * link.overhead + transfer;
  switch (algorithm) {
    case Algorithm::doubling:
      return message.round + doubling_seconds(ranks, send, message.merge);
    case Algorithm::tree:
      return message.round + tree_seconds(ranks, send, message.merge);
    case Algorithm::linear:
      break;
  }
  return message.round + linear_seconds(ranks, send, message.merge, link, transfer);
}

}  // namespace syncbn::cli::bench
