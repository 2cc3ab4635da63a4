// SPDX-License-Identifier: MIT
// Waiting for messages of the program's own with a deadline: the one of a Communicator that watches over an MPI_Comm.
#pragma once

#include <mpi.h>

#include "syncbn/communicator.hpp"

namespace syncbn::train {

/// Throws MpiError, naming the MPI function, unless `code` is MPI_SUCCESS.
void check(int code, const char* function);

/// From now on wait() on `comm` has the deadline of `watch`, which must be over the same ranks. Kept with the MPI_Comm, until
/// its end or watch_no_more().
void watch_over(MPI_Comm comm, const Communicator& watch);
void watch_no_more(MPI_Comm comm);

/// The Communicator over `comm`: the one that watches over it, or a new one (then collective).
Communicator communicator_over(MPI_Comm comm);

/// How long wait() on `comm` waits; infinite if nobody watches. Local.
double deadline_seconds_of(MPI_Comm comm);

/// Waits for a nonblocking operation on `comm`; `what` names it in errors. Throws MpiError; if somebody watches, what
/// Communicator::wait() throws.
void wait(MPI_Comm comm, MPI_Request& request, const char* what);

/// Tells ranks that wait on `comm` that this one is at work. Local.
void still_here(MPI_Comm comm);

}  // namespace syncbn::train
