// SPDX-License-Identifier: MIT
// How much of a message hides behind computing.
#pragma once

#include <vector>

#include <mpi.h>

#include "bench.hpp"
#include "bench_comm_layer.hpp"

namespace syncbn::cli::bench {

constexpr double kComputeSeconds = 5e-3;
constexpr int kProgressCalls = 20;

/// Seconds; over the repetitions in which every rank was running all the time, of the slowest rank in each.
struct Wait {
  double median = 0.0;
  double mean = 0.0;      ///< Says more where messages alternate between quick and slow, as on delayed networks.
  double quartile = 0.0;  ///< The lower one: says more where other processes disturb more than half of the repetitions.
};

/// How long finish_forward_train() of a layer over all ranks takes beyond that of each rank alone.
struct Overlap {
  Index channels = 0;
  Exchange exchange = Exchange::automatic;
  Wait at_once;               ///< Straight after begin_forward_train().
  Wait after_computing;       ///< kComputeSeconds of it, no call in between.
  Wait after_progress_calls;  ///< With kProgressCalls calls of progress() in between.
};

/// In the order of options.channels and `groups`. Collective.
std::vector<Overlap> measure_overlap(const Options& options, const Groups& groups, MPI_Comm comm);

}  // namespace syncbn::cli::bench
