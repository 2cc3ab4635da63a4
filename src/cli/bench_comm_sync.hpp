// SPDX-License-Identifier: MIT
// What synchronizing costs: passes of a layer over all ranks, less those of each rank alone.
#pragma once

#include <vector>

#include <mpi.h>

#include "bench.hpp"
#include "bench_comm_layer.hpp"

namespace syncbn::cli::bench {

/// One exchange. In seconds, medians, of the slowest rank.
struct SyncCost {
  Index channels = 0;
  Pass pass = Pass::forward;
  Exchange exchange = Exchange::automatic;
  double seconds = 0.0;  ///< Of a pass over all ranks, beyond one of each rank alone.
  double allreduce =
      0.0;  ///< One blocking MPI_Allreduce(MPI_SUM) of 2C+1 doubles: what mean and variance need at least.

  double ratio() const noexcept { return allreduce > 0.0 ? seconds / allreduce : 0.0; }
};

/// In the order of options.channels, options.passes and `groups`; all timed in turn. Collective.
std::vector<SyncCost> measure_sync(const Options& options, const Groups& groups, MPI_Comm comm);

}  // namespace syncbn::cli::bench
