// SPDX-License-Identifier: MIT
// The ranks of an MPI communicator.
#pragma once

#include <vector>

#include <mpi.h>

#include "comm/transport.hpp"

namespace syncbn::comm {

/// Owns a duplicate of the caller's communicator on which MPI returns error codes; every code is checked.
///
/// A message is ONE element of a derived type, so MPI cannot cut it up, and a user operation merges whole messages.
/// (With one element Open MPI uses recursive doubling, also faster than its splitting algorithms for messages of this
/// size.)
class MpiTransport final : public Transport {
 public:
  /// Collective over `comm`. Throws MpiError, on the calling rank, if MPI is not initialized or already finalized.
  static std::unique_ptr<Transport> duplicate_of(MPI_Comm comm);

  ~MpiTransport() override;
  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  std::unique_ptr<Transport> duplicate() const override;
  void all_reduce(std::byte* message, std::size_t bytes, Merge merge) override;
  void all_gather(const std::byte* mine, std::size_t bytes, std::byte* all) override;
  void broadcast(std::byte* data, std::size_t bytes, int root) override;

 private:
  struct MessageType {
    std::size_t bytes;
    Merge merge;
    MPI_Datatype type;
  };

  MpiTransport() = default;
  static void wait(MPI_Request& request);
  MPI_Datatype message_type(std::size_t bytes, Merge merge);

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  MPI_Op operation_ = MPI_OP_NULL;
  std::vector<MessageType> message_types_;  // a handful per layer: one per payload size and merge
};

}  // namespace syncbn::comm
