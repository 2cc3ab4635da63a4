// SPDX-License-Identifier: MIT
#pragma once

#include <mpi.h>

#include "bench.hpp"

namespace syncbn::cli::bench {

/// Verifies and times all cases, prints them on rank 0. Returns the exit code; throws AgreedFailure (check failed) if a
/// result is wrong. Collective.
int run(const Options& options, MPI_Comm comm);

}  // namespace syncbn::cli::bench
