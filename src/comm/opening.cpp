// SPDX-License-Identifier: MIT
#include "comm/opening.hpp"

#include <utility>

#include "comm/keep.hpp"
#include "comm/mpi_error.hpp"
#include "comm/mpi_notes.hpp"
#include "comm/mpi_transport.hpp"
#include "comm/watch.hpp"

namespace syncbn::comm {
namespace {

/// The largest tag that every MPI has, and one that a program is not likely to use itself.
constexpr int kTag = 32767;

/// Notes on the caller's communicator, since there is no other yet. One is sent only after a deadline has passed.
class CallersNotes final : public Transport {
 public:
  explicit CallersNotes(MPI_Comm comm) : size_(ranks_in(comm)), notes_(comm, kTag) {
    check(MPI_Comm_rank(comm, &rank_), "MPI_Comm_rank");
  }
  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  std::unique_ptr<Channel> open_channel() override { return nullptr; }
  bool has_independent_channels() const noexcept override { return false; }
  void post(const Note& note, int to) override { notes_.post(note, to); }
  bool receive(Note& note) override { return notes_.receive(note); }

 private:
  int rank_ = 0;
  int size_;
  MpiNotes notes_;
};

class Opening final : public Awaited {
 public:
  explicit Opening(MPI_Comm comm) : comm_(comm) {}
  bool test() override {
    if (transport_ == nullptr) transport_ = std::make_unique<MpiTransport>(comm_);
    return transport_->is_ready();
  }
  std::string place() const override { return "[Communicator construction]"; }
  bool needs(std::int32_t, std::int64_t) const override { return false; }

  std::unique_ptr<Transport> take() { return std::move(transport_); }
  void give_up() {
    if (transport_ == nullptr) return;
    transport_->give_up();
    keep_for_ever(std::move(transport_));
  }

 private:
  MPI_Comm comm_;
  std::unique_ptr<MpiTransport> transport_;
};

}  // namespace

std::unique_ptr<Transport> open_transport(MPI_Comm comm, double deadline_seconds) {
  if (ranks_in(comm) == 1) return std::make_unique<SingleTransport>();
  CallersNotes notes(comm);
  Watch watch(notes, deadline_seconds);
  Opening opening(comm);
  try {
    watch.wait(opening);
  } catch (...) {
    opening.give_up();
    throw;
  }
  return opening.take();
}

}  // namespace syncbn::comm
