// SPDX-License-Identifier: MIT
// Where the notes of groups travel over MPI.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include <mpi.h>

#include "comm/mpi_channel.hpp"
#include "comm/mpi_notes.hpp"

namespace syncbn::comm {

/// The notes of all groups, past and present, over the same processes in the same order.
///
/// A note may come when its receiver has long destroyed the group that it is about. Its communicator must then still be
/// there: MPI leaves open what becomes of a message to one that was freed, and Open MPI 4.1 hands it to the next
/// communicator of the same number, or crashes if that one has no such rank. So a board is never freed. A program has as
/// many as it has sets of processes in groups.
///
/// Safe to call from several threads, as far as MPI is.
class NoteBoard {
 public:
  using Key = std::array<std::uint64_t, 2>;

  /// What rank 0 tells the others about the board of a new group.
  struct Greeting {
    Key key = {};
    std::int64_t group = 0;
    std::int64_t is_new = 0;
  };

  /// On rank 0: names the board of the processes of `comm`, and a group on it that is not on it yet.
  static Greeting greet(MPI_Comm comm);
  /// On every rank, with rank 0's greeting: the board, in the making if it is new. nullptr: another thread of this process
  /// has not heard of it yet; ask again. Collective over `comm` if it is new.
  static std::shared_ptr<NoteBoard> find(const Greeting& greeting, MPI_Comm comm);

  /// Is it made? To be asked until it is.
  bool is_ready();

  /// Notes for a group are kept from open() to close(), and those that come before open().
  void open(std::int64_t group);
  void close(std::int64_t group) noexcept;

  /// Neither waits. The note says which group it is of.
  void post(const Note& note, int to);
  bool receive(std::int64_t group, Note& note);

 private:
  NoteBoard(const Key& key, MPI_Comm comm);
  void take_in();

  const Key key_;
  MpiChannel channel_;
  std::mutex mutex_;              // of what follows
  std::optional<MpiNotes> mail_;  // when the channel is open
  std::int64_t next_group_ = 1;   // on rank 0; it was made for group 0
  std::int64_t newest_ = -1;      // that has been opened
  std::map<std::int64_t, std::deque<Note>> notes_;
};

}  // namespace syncbn::comm
