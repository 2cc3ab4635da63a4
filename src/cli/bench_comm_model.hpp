// SPDX-License-Identifier: MIT
// What a message costs on any number of ranks, from what it costs between two: the LogGP model.
#pragma once

#include <cstddef>

namespace syncbn::cli::bench {

/// Two ranks and what is between them, in seconds. Source: Alexandrov, Ionescu, Schauser & Scheiman 1995, "LogGP:
/// Incorporating Long Messages into the LogP Model".
struct Link {
  double latency = 0.0;       ///< L: from the end of sending to the begin of receiving a small message.
  double overhead = 0.0;      ///< o: processor's time to send, or to receive, a small message.
  double gap = 0.0;           ///< g: between small messages that follow each other.
  double gap_per_byte = 0.0;  ///< G: of long messages.
};

/// A layer's message, in seconds.
struct MessageCost {
  std::size_t bytes = 0;
  double merge = 0.0;  ///< One message into another, all of it.
  double round = 0.0;  ///< What a round costs a layer beside merging and transport: header, checks.
};

/// How MPI libraries merge or gather.
enum class Algorithm {
  doubling,  ///< All-reduce by recursive doubling: log2 P exchanges (MPICH's Iallreduce, Open MPI's blocking one).
  tree,      ///< All-reduce up a binomial tree and down again (Open MPI's Iallreduce).
  linear,    ///< All-gather from each to each (Open MPI's Iallgather), then P - 1 merges on each rank.
};

constexpr const char* name_of(Algorithm algorithm) noexcept {
  return algorithm == Algorithm::doubling ? "doubling" : algorithm == Algorithm::tree ? "tree" : "linear";
}

/// Seconds from begin to end on `ranks` >= 1 ranks that begin together; 0 for one. Every link is like `link`, and no two
/// messages share one: a lower bound for networks that are not.
double predicted_seconds(Algorithm algorithm, int ranks, const Link& link, const MessageCost& message);

}  // namespace syncbn::cli::bench
