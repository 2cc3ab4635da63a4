// SPDX-License-Identifier: MIT
// Measures what the model of messages is fed with.
#pragma once

#include <vector>

#include <mpi.h>

#include "bench.hpp"
#include "bench_comm_model.hpp"

namespace syncbn::cli::bench {

/// Ping-pong between rank 0 and the last rank, which are on different hosts if there are several. The others wait.
/// The same on all ranks. Collective; two ranks at least.
Link measure_link(MPI_Comm comm);

/// A layer's message and what its merging costs a rank, without any transport: ranks that are copies of this one are
/// gathered in memory.
struct MessageCosts {
  Index channels = 0;
  double local = 0.0;  ///< A forward pass of this rank alone, in seconds.
  MessageCost message;
};

/// For each of options.channels; the slowest rank counts. Collective.
std::vector<MessageCosts> measure_messages(const Options& options, MPI_Comm comm);

}  // namespace syncbn::cli::bench
