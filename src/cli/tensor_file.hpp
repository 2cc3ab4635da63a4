// SPDX-License-Identifier: MIT
// Tensors in .npy files whose rows belong to different ranks.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <mpi.h>

#include "file.hpp"
#include "npy.hpp"
#include "shards.hpp"

namespace syncbn::cli {

/// Numbers of either type, as they lie in a file.
using Bytes = std::vector<std::byte>;

/// Bytes of one row (all but the first axis). The header must have an axis.
Index row_bytes(const NpyHeader& header) noexcept;

/// Reads the header on every rank, so the file must be visible to all hosts and be the same there.
/// Collective. Throws AgreedFailure.
NpyHeader read_shared_header(MPI_Comm comm, const std::string& path);

/// Reads this rank's rows; all ranks read at the same time. NaN and infinity are refused, naming the first one in the
/// file by its index. Collective. Throws AgreedFailure.
Bytes read_finite_rows(MPI_Comm comm, const std::string& path, const NpyHeader& header, RowRange rows);

/// Reads the vector (channels) of `path` on rank 0 and gives it to all ranks. Finite numbers only, which must stay
/// finite in `type`, the layer's type. Collective. Throws AgreedFailure.
std::vector<double> read_channel_vector(MPI_Comm comm, const std::string& path, Index channels, DataType type);

/// What all ranks need to write one array: its name and type, the whole shape, how many rows each rank brings.
struct OutputArray {
  std::string name;  ///< Without ".npy".
  DataType type;
  std::vector<Index> shape;
  const std::vector<Index>& rows_of_ranks;
};

/// Rank 0 writes the array to `folder` (null on the others), rank by rank, receiving the rows of the others in pieces
/// of at most 64 MiB. Only rank 0's host needs to see the folder. Collective. Throws AgreedFailure.
void write_rows(MPI_Comm comm, OutputFolder* folder, const OutputArray& array, const void* my_rows);

}  // namespace syncbn::cli
