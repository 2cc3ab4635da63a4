// SPDX-License-Identifier: MIT
#include "comm/mpi_transport.hpp"

#include <algorithm>
#include <utility>

#include "comm/keep.hpp"
#include "comm/mpi_error.hpp"
#include "syncbn/error.hpp"

namespace syncbn::comm {
namespace {

constexpr int kNoteTag = 1;

int size_of(MPI_Comm comm) {
  int size = 1;
  check(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  return size;
}

}  // namespace

MpiTransport::MpiTransport(MPI_Comm comm) {
  check_mpi_is_running();
  if (comm == MPI_COMM_NULL) throw MpiError("[Communicator] the communicator is MPI_COMM_NULL");
  check(MPI_Comm_rank(comm, &rank_), "MPI_Comm_rank");
  size_ = size_of(comm);
  base_ = std::make_unique<MpiChannel>(comm, rank_, size_);
}

MpiTransport::~MpiTransport() {
  if (mpi_is_finalized()) return;
  drop_sent();
  for (Posted& waiting : posted_) keep_for_ever(std::move(waiting.note));
  if (is_given_up_) return;
  try {  // takes what has come, so that the communicator is freed with nothing left in it
    Note note;
    while (is_ready() && receive(note)) {
    }
  } catch (const Error&) {  // nobody is left to be told
  }
}

void MpiTransport::give_up() noexcept {
  is_given_up_ = true;
  base_->give_up();
}

std::unique_ptr<Channel> MpiTransport::open_channel() {
  check_mpi_is_running();
  return std::make_unique<MpiChannel>(comm(), rank_, size_);
}

/// Forgets notes that are on their way.
void MpiTransport::drop_sent() {
  const auto is_sent = [](Posted& posted) {
    int done = 0;
    MPI_Test(&posted.request, &done, MPI_STATUS_IGNORE);
    return done != 0;
  };
  posted_.erase(std::remove_if(posted_.begin(), posted_.end(), is_sent), posted_.end());
}

void MpiTransport::post(const Note& note, int to) {
  check_mpi_is_running();  // a late error has notes for the others, too
  drop_sent();             // a rank that says for hours that it is still here would collect them
  posted_.push_back({std::make_unique<Note>(note), MPI_REQUEST_NULL});
  Posted& sent = posted_.back();
  check(MPI_Isend(sent.note.get(), sizeof(Note), MPI_BYTE, to, kNoteTag, comm(), &sent.request), "MPI_Isend");
}

bool MpiTransport::receive(Note& note) {
  int found = 0;
  MPI_Message message = MPI_MESSAGE_NULL;
  check(MPI_Improbe(MPI_ANY_SOURCE, kNoteTag, comm(), &found, &message, MPI_STATUS_IGNORE), "MPI_Improbe");
  if (!found) return false;
  check(MPI_Mrecv(&note, sizeof note, MPI_BYTE, &message, MPI_STATUS_IGNORE), "MPI_Mrecv");
  return true;
}

}  // namespace syncbn::comm
