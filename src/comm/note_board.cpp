// SPDX-License-Identifier: MIT
#include "comm/note_board.hpp"

#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include "comm/mpi_error.hpp"

namespace syncbn::comm {
namespace {

constexpr int kNoteTag = 1;

int rank_in(MPI_Comm comm) {
  int rank = 0;
  check(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  return rank;
}

int size_of(MPI_Comm comm) {
  int size = 1;
  check(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  return size;
}

/// A name that no board of another process has: chance, the time, and a count.
NoteBoard::Key new_key() {
  static std::uint64_t count = 0;  // guarded by the boards' mutex
  std::random_device chance;
  const auto now = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
  return {(static_cast<std::uint64_t>(chance()) << 32 | chance()) + ++count, now};
}

/// All boards of this process. Never destroyed, at exit neither.
struct Boards {
  std::mutex mutex;
  std::vector<std::shared_ptr<NoteBoard>> all;
};

Boards& boards() {
  static auto& the_boards = *new Boards;
  return the_boards;
}

}  // namespace

NoteBoard::NoteBoard(const Key& key, MPI_Comm comm) : key_(key), channel_(comm, rank_in(comm), size_of(comm)) {}

/// Begins nothing: the greeting goes before the making, on every rank.
NoteBoard::Greeting NoteBoard::greet(MPI_Comm comm) {
  const std::lock_guard lock(boards().mutex);
  for (const auto& board : boards().all) {
    const std::lock_guard board_lock(board->mutex_);
    int likeness = MPI_UNEQUAL;
    if (board->mail_) check(MPI_Comm_compare(comm, board->channel_.comm(), &likeness), "MPI_Comm_compare");
    if (likeness == MPI_CONGRUENT) return {board->key_, board->next_group_++, 0};
  }
  return {new_key(), 0, 1};
}

std::shared_ptr<NoteBoard> NoteBoard::find(const Greeting& greeting, MPI_Comm comm) {
  const std::lock_guard lock(boards().mutex);
  auto& all = boards().all;
  const auto known =
      std::find_if(all.begin(), all.end(), [&](const auto& board) { return board->key_ == greeting.key; });
  if (known != all.end()) return *known;
  if (greeting.is_new == 0) return nullptr;
  all.push_back(std::shared_ptr<NoteBoard>(new NoteBoard(greeting.key, comm)));
  return all.back();
}

bool NoteBoard::is_ready() {
  const std::lock_guard lock(mutex_);
  if (!mail_ && channel_.test()) mail_.emplace(channel_.comm(), kNoteTag);
  return mail_.has_value();
}

void NoteBoard::open(std::int64_t group) {
  const std::lock_guard lock(mutex_);
  notes_[group];
  newest_ = std::max(newest_, group);
}

void NoteBoard::close(std::int64_t group) noexcept {
  const std::lock_guard lock(mutex_);
  notes_.erase(group);
}

void NoteBoard::post(const Note& note, int to) {
  const std::lock_guard lock(mutex_);
  mail_->post(note, to);
}

/// Takes all notes that have come.
void NoteBoard::take_in() {
  Note note;
  while (mail_->receive(note)) {
    if (note.group > newest_ || notes_.count(note.group) != 0) notes_[note.group].push_back(note);
  }
}

bool NoteBoard::receive(std::int64_t group, Note& note) {
  const std::lock_guard lock(mutex_);
  take_in();
  const auto found = notes_.find(group);
  if (found == notes_.end() || found->second.empty()) return false;
  note = found->second.front();
  found->second.pop_front();
  return true;
}

}  // namespace syncbn::comm
