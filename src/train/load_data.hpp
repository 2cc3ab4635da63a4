// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include <mpi.h>

#include "dataset.hpp"

namespace syncbn::train {

/// The images of a folder (data_folder.hpp), read by rank 0 and sent to all; the built-in images if `folder` is empty.
/// Collective. Throws DataError on all ranks.
DataSet load_data(const std::string& folder, MPI_Comm comm);

}  // namespace syncbn::train
