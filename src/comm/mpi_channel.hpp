// SPDX-License-Identifier: MIT
// Merges and broadcasts on a communicator of its own.
#pragma once

#include <cstdint>
#include <vector>

#include <mpi.h>

#include "comm/transport.hpp"

namespace syncbn::comm {

/// Owns a duplicate of a communicator, on which MPI returns error codes; every code is checked.
///
/// All-reduce: a message is ONE element of a derived type, so MPI cannot cut it up, and a user operation merges whole
/// messages. All-gather: one round, which needs no help from this process once it has begun; so it is also the one that
/// travels while the program computes.
class MpiChannel final : public Channel {
 public:
  /// Starts to duplicate `parent`. Collective.
  MpiChannel(MPI_Comm parent, int rank, int size);
  ~MpiChannel() override;

  void start_merge(std::byte* message, std::size_t bytes, Merge merge, Exchange exchange) override;
  void start_broadcast(std::byte* data, std::size_t bytes, int root) override;
  bool test() override;
  void give_up() noexcept override { is_given_up_ = true; }

  /// The duplicate, once the opening is done. It stays this channel's.
  MPI_Comm comm() const noexcept { return comm_; }

 private:
  struct MessageType {
    std::size_t bytes;
    Merge merge;
    MPI_Datatype type;
  };
  struct Gather {  // in flight
    std::byte* message = nullptr;
    std::size_t bytes = 0;
    Merge merge = nullptr;
  };

  bool uses_all_gather(std::size_t bytes, Exchange exchange) const;
  MPI_Datatype message_type(std::size_t bytes, Merge merge);
  void merge_gathered();

  int rank_;
  int size_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  MPI_Op operation_ = MPI_OP_NULL;
  MPI_Request request_ = MPI_REQUEST_NULL;  // of the operation in flight
  Gather gather_;
  std::vector<std::uint64_t> gathered_;     // all ranks' messages
  std::vector<MessageType> message_types_;  // a handful: one per payload size and merge
  bool is_open_ = false;
  bool is_given_up_ = false;
};

}  // namespace syncbn::comm
