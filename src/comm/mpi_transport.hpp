// SPDX-License-Identifier: MIT
// The ranks of an MPI communicator.
#pragma once

#include <memory>

#include <mpi.h>

#include "comm/mpi_channel.hpp"
#include "comm/note_board.hpp"

namespace syncbn::comm {

/// Throws MpiError, on the calling rank, if MPI is not running or `comm` is MPI_COMM_NULL.
int ranks_in(MPI_Comm comm);

/// Works on duplicates: the caller's communicator, its messages and its error handler are not touched.
class MpiTransport final : public Transport {
 public:
  /// Starts to duplicate `comm`; is_ready() must have been asked until it is true. Collective. Throws as ranks_in() does.
  explicit MpiTransport(MPI_Comm comm);
  ~MpiTransport() override;
  bool is_ready();

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  std::unique_ptr<Channel> open_channel() override;
  bool has_independent_channels() const noexcept override { return true; }
  void post(const Note& note, int to) override;
  bool receive(Note& note) override { return board_->receive(group_, note); }
  void give_up() noexcept override;

 private:
  enum class Opening { duplicate, greeting, board, done };

  bool advance();

  int rank_ = 0;
  int size_ = 1;
  std::unique_ptr<MpiChannel> base_;               // to make channels from
  std::unique_ptr<NoteBoard::Greeting> greeting_;  // rank 0's
  std::shared_ptr<NoteBoard> board_;
  std::int64_t group_ = 0;  // this one, on the board
  Opening opening_ = Opening::duplicate;
};

}  // namespace syncbn::comm
