// SPDX-License-Identifier: MIT
#include "comm/mpi_notes.hpp"

#include <algorithm>
#include <utility>

#include "comm/keep.hpp"
#include "comm/mpi_error.hpp"

namespace syncbn::comm {

MpiNotes::~MpiNotes() {
  if (!mpi_is_finalized()) drop_sent();
  for (Posted& waiting : posted_) keep_for_ever(std::move(waiting.note));
}

/// Forgets notes that have arrived: a rank that says for hours that it is still here would collect them.
void MpiNotes::drop_sent() {
  const auto is_sent = [](Posted& posted) {
    int done = 0;
    MPI_Test(&posted.request, &done, MPI_STATUS_IGNORE);
    return done != 0;
  };
  posted_.erase(std::remove_if(posted_.begin(), posted_.end(), is_sent), posted_.end());
}

void MpiNotes::post(const Note& note, int to) {
  check_mpi_is_running();  // a late error has notes for the others, too
  drop_sent();
  posted_.push_back({std::make_unique<Note>(note), MPI_REQUEST_NULL});
  Posted& sent = posted_.back();
  check(MPI_Isend(sent.note.get(), sizeof(Note), MPI_BYTE, to, tag_, comm_, &sent.request), "MPI_Isend");
}

bool MpiNotes::receive(Note& note) {
  int found = 0;
  MPI_Message message = MPI_MESSAGE_NULL;
  check(MPI_Improbe(MPI_ANY_SOURCE, tag_, comm_, &found, &message, MPI_STATUS_IGNORE), "MPI_Improbe");
  if (!found) return false;
  check(MPI_Mrecv(&note, sizeof note, MPI_BYTE, &message, MPI_STATUS_IGNORE), "MPI_Mrecv");
  return true;
}

}  // namespace syncbn::comm
