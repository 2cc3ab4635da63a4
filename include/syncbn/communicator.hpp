// SPDX-License-Identifier: MIT
// Which processes share their statistics.
#pragma once

#include <memory>

#include <mpi.h>

namespace syncbn {

namespace comm {
class Transport;
}

/// The group of ranks whose batches count as one. A value: copies share the same group.
///
/// MPI_Init and MPI_Finalize are the program's business. Objects may outlive MPI_Finalize; they just cannot communicate
/// then.
class Communicator {
 public:
  /// This process alone: local batch norm. Needs no MPI.
  Communicator();

  /// All ranks of `comm`. Works on a duplicate, so the caller's messages and error handler are not touched. Collective
  /// over `comm`. Throws MpiError if MPI is not running.
  explicit Communicator(MPI_Comm comm);

  int rank() const noexcept;
  int size() const noexcept;

  /// The transport behind it, for the layer's own use.
  comm::Transport& transport() const noexcept { return *transport_; }

 private:
  std::shared_ptr<comm::Transport> transport_;
};

}  // namespace syncbn
