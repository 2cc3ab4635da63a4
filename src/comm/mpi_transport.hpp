// SPDX-License-Identifier: MIT
// The ranks of an MPI communicator.
#pragma once

#include <memory>
#include <vector>

#include <mpi.h>

#include "comm/mpi_channel.hpp"

namespace syncbn::comm {

/// Works on duplicates: the caller's communicator, its messages and its error handler are not touched.
class MpiTransport final : public Transport {
 public:
  /// Starts to duplicate `comm`; is_ready() must have been asked until it is true. Collective. Throws MpiError, on the
  /// calling rank, if MPI is not running or `comm` is MPI_COMM_NULL.
  explicit MpiTransport(MPI_Comm comm);
  ~MpiTransport() override;
  bool is_ready() { return base_->test(); }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  std::unique_ptr<Channel> open_channel() override;
  bool has_independent_channels() const noexcept override { return true; }
  void post(const Note& note, int to) override;
  bool receive(Note& note) override;
  void give_up() noexcept override;

  /// The duplicate.
  MPI_Comm comm() const noexcept { return base_->comm(); }

 private:
  struct Posted {
    std::unique_ptr<Note> note;
    MPI_Request request;
  };

  void drop_sent();

  int rank_ = 0;
  int size_ = 1;
  std::unique_ptr<MpiChannel> base_;  // for notes, and to make channels from
  std::vector<Posted> posted_;
  bool is_given_up_ = false;
};

}  // namespace syncbn::comm
