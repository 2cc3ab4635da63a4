// SPDX-License-Identifier: MIT
// MPI's return codes and state as exceptions.
#pragma once

namespace syncbn::comm {

/// Throws MpiError with MPI's own words unless `code` is MPI_SUCCESS.
void check(int code, const char* function);

/// Throws MpiError if no messages are possible now.
void check_mpi_is_running();

bool mpi_is_finalized();

}  // namespace syncbn::comm
