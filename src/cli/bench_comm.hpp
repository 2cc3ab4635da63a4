// SPDX-License-Identifier: MIT
#pragma once

#include <mpi.h>

#include "bench.hpp"

namespace syncbn::cli::bench {

/// syncbn bench --comm: times what messages cost, prints it on rank 0. Returns the exit code. Collective.
int run_comm(const Options& options, MPI_Comm comm);

}  // namespace syncbn::cli::bench
