// SPDX-License-Identifier: MIT
// Notes as messages from point to point.
#pragma once

#include <memory>
#include <vector>

#include <mpi.h>

#include "comm/note.hpp"

namespace syncbn::comm {

/// Sends and takes notes on a communicator of somebody else's. Nothing waits. What is still on its way when this object
/// is destroyed stays in memory for ever.
class MpiNotes {
 public:
  MpiNotes(MPI_Comm comm, int tag) : comm_(comm), tag_(tag) {}
  ~MpiNotes();
  MpiNotes(const MpiNotes&) = delete;
  MpiNotes& operator=(const MpiNotes&) = delete;

  /// Both throw MpiError.
  void post(const Note& note, int to);
  bool receive(Note& note);

 private:
  struct Posted {
    std::unique_ptr<Note> note;
    MPI_Request request;
  };

  void drop_sent();

  MPI_Comm comm_;
  int tag_;
  std::vector<Posted> posted_;
};

}  // namespace syncbn::comm
