// SPDX-License-Identifier: MIT
// The same bits, shown: batches run in one process and in many other ways, one hash of all result bytes each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <mpi.h>

#include "syncbn/options.hpp"

namespace syncbn::cli {

/// One way to run the batches, and what came out.
struct BitsLine {
  std::string samples;  ///< How they lie on the ranks.
  int ranks = 1;
  int threads = 1;
  std::uint64_t hash = 0;
  bool is_same = false;  ///< As the first line's, and on all ranks.
};

/// Runs three batches (f32 rows, f32 planes, f64 planes; two training steps each) on groups of 1 .. all ranks with
/// several splits, orders and thread counts. The first line is the whole batch in one process. The hash covers y, dx,
/// mean, var, dgamma, dbeta, running_mean and running_var, sample by sample in the order of the whole batch.
///
/// Collective over `comm`; the same on all ranks. Cost: some 10 ms a line.
std::vector<BitsLine> run_same_bits(std::uint64_t seed, Reduction reduction, MPI_Comm comm);

}  // namespace syncbn::cli
