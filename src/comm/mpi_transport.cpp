// SPDX-License-Identifier: MIT
#include "comm/mpi_transport.hpp"

#include "comm/mpi_error.hpp"
#include "syncbn/error.hpp"

namespace syncbn::comm {

int ranks_in(MPI_Comm comm) {
  check_mpi_is_running();
  if (comm == MPI_COMM_NULL) throw MpiError("[Communicator] the communicator is MPI_COMM_NULL");
  int size = 1;
  check(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  return size;
}

MpiTransport::MpiTransport(MPI_Comm comm) : size_(ranks_in(comm)), greeting_(std::make_unique<NoteBoard::Greeting>()) {
  check(MPI_Comm_rank(comm, &rank_), "MPI_Comm_rank");
  base_ = std::make_unique<MpiChannel>(comm, rank_, size_);
}

MpiTransport::~MpiTransport() {
  if (board_ != nullptr) board_->close(group_);
}

void MpiTransport::give_up() noexcept { base_->give_up(); }

bool MpiTransport::is_ready() {
  while (opening_ != Opening::done) {
    if (!advance()) return false;
  }
  return true;
}

/// The next step of opening, if what it needs is there: the duplicate; what rank 0 says; the board that it names.
bool MpiTransport::advance() {
  switch (opening_) {
    case Opening::duplicate:
      if (!base_->test()) return false;
      if (rank_ == 0) *greeting_ = NoteBoard::greet(base_->comm());
      base_->start_broadcast(reinterpret_cast<std::byte*>(greeting_.get()), sizeof *greeting_, 0);
      opening_ = Opening::greeting;
      return true;
    case Opening::greeting:
      if (!base_->test()) return false;
      board_ = NoteBoard::find(*greeting_, base_->comm());
      if (board_ == nullptr) return false;
      opening_ = Opening::board;
      return true;
    case Opening::board:
      if (!board_->is_ready()) return false;
      group_ = greeting_->group;
      board_->open(group_);
      opening_ = Opening::done;
      return true;
    case Opening::done:
      return true;
  }
  return true;
}

std::unique_ptr<Channel> MpiTransport::open_channel() {
  check_mpi_is_running();
  return std::make_unique<MpiChannel>(base_->comm(), rank_, size_);
}

void MpiTransport::post(const Note& note, int to) {
  Note sent = note;
  sent.group = group_;
  board_->post(sent, to);
}

}  // namespace syncbn::comm
