// SPDX-License-Identifier: MIT
// How the ranks of the program fail together: no rank may throw between two collectives that the others will enter.
#pragma once

#include <functional>
#include <optional>

#include <mpi.h>

#include "failure.hpp"
#include "syncbn/error.hpp"

namespace syncbn::cli {

/// Throws MpiError, naming the MPI function, unless `code` is MPI_SUCCESS.
void check_mpi(int code, const char* function);

int rank_of(MPI_Comm comm);
int size_of(MPI_Comm comm);

/// Returns on all ranks if no rank has a failure. Else throws, on all ranks, an AgreedFailure with the code and text of
/// the lowest rank that has one; the text names that rank unless all ranks failed.
///
/// Collective. Cost: one all-reduce of 8 bytes; two broadcasts more if there is a failure.
void agree(MPI_Comm comm, const std::optional<Failure>& mine);

/// Runs `work` and returns how it failed: by LocalFailure, an error of the library, or a lack of memory. MpiError and
/// anything else passes through: main() ends the job then. Local.
std::optional<Failure> failure_of(const std::function<void()>& work);

/// Runs `work` on this rank, then agrees on how it went: what failure_of() returns on any rank is thrown as
/// AgreedFailure on all ranks.
///
/// Collective. `work` may be different on each rank; it must not communicate. (The library's collective calls agree by
/// themselves: call them outside.)
void together(MPI_Comm comm, const std::function<void()>& work);

/// together() for work that one rank does: the others wait for how it went.
void together_on(int rank, MPI_Comm comm, const std::function<void()>& work);

/// The exit code that belongs to an error of the library.
ExitCode exit_code_of(ErrorCode code) noexcept;

}  // namespace syncbn::cli
