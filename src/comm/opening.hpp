// SPDX-License-Identifier: MIT
// The first thing that ranks do together.
#pragma once

#include <memory>

#include <mpi.h>

#include "comm/transport.hpp"

namespace syncbn::comm {

/// The transport of the ranks of `comm`, ready for use. Collective. Throws MpiError as ranks_in() does; on all ranks that
/// are there, TimeoutError if others are missing when the deadline has passed, MpiError if a call fails on one. Then
/// `comm` has messages in flight that nobody may ever take: another try needs another communicator.
std::unique_ptr<Transport> open_transport(MPI_Comm comm, double deadline_seconds);

}  // namespace syncbn::comm
