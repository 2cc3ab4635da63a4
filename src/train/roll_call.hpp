// SPDX-License-Identifier: MIT
// Who works asks those who wait whether they are still there.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include <mpi.h>

#include "syncbn/tensor_view.hpp"

namespace syncbn::train {

/// The first ranks of a communicator work, the others wait. Rank 0, which works, asks those who wait for a sign of life, four
/// times a second or in the deadline, by messages that no collective operation depends on; so who is gone is known while the
/// work goes on, not when it ends. What it hears starts the deadline of those who wait again.
///
/// Cost: two empty messages for each rank that waits and question, on which rank 0 spends about a microsecond.
class RollCall {
 public:
  /// Ranks of `comm` from `first_waiting` on wait; `deadline_seconds` is how long they have for an answer. `place` is for errors:
  /// "[training on 2 of 3 ranks]". `comm` must be watched over (watched.hpp) or nobody has a deadline, and outlive this object. No
  /// other messages from rank to rank may travel on it meanwhile. Local.
  RollCall(MPI_Comm comm, Index first_waiting, double deadline_seconds, std::string place);
  ~RollCall();
  RollCall(const RollCall&) = delete;
  RollCall& operator=(const RollCall&) = delete;

  /// For rank 0, every now and then while it works: asks if it is time to, and finds out who has not answered within the
  /// deadline. A rank that is found missing at once gets a quarter of a second more: this one may have been held up itself. Local.
  void ask();

  /// Somebody has not answered. On rank 0 only: those who work with it should end their work together.
  bool is_missing_somebody() const noexcept { return !verdict_.empty(); }

  /// Throws TimeoutError if somebody has not answered: for work of rank 0 alone.
  void throw_if_missing() const;

  /// Does `work` on all ranks (nothing, on those that wait), and returns when all ranks have come to its end; or throws what it
  /// has thrown. Throws TimeoutError on all ranks that are left, with the same words, if one is missing. If `work` throws
  /// TimeoutError, so does this at once, and those who wait hear of it from rank 0.
  /// Collective over the communicator.
  void during(const std::function<void()>& work);

 private:
  using Clock = std::chrono::steady_clock;

  /// What rank 0 knows of another one.
  struct Other {
    int rank = 0;
    MPI_Request answer = MPI_REQUEST_NULL;  // null: it has answered whatever it was asked
    Clock::time_point asked{};
    bool is_here = false;  // at the end of the work
  };

  bool has_answered(Other& other);
  void question(Other& other);
  void judge();
  void end();
  void call_all();
  void wait_for_end();
  std::string receive();
  void send(char kind, const std::string& text, int rank) const;
  void tell_those_who_wait(const std::string& text) noexcept;

  MPI_Comm comm_;
  Index first_waiting_;
  double deadline_;
  double every_;  // seconds
  std::string place_;
  std::vector<Other> others_;  // on rank 0; those who work with it are asked at the end only
  Clock::time_point last_{};   // time that others were asked
  std::string verdict_;
};

}  // namespace syncbn::train
