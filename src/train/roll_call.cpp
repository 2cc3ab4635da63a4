// SPDX-License-Identifier: MIT
#include "roll_call.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <thread>
#include <utility>

#include <sched.h>

#include "collectives.hpp"
#include "syncbn/error.hpp"
#include "watched.hpp"

namespace syncbn::train {

namespace {

using Seconds = std::chrono::duration<double>;

constexpr int kTag = 2771;
constexpr std::size_t kMostBytes =
    1000;                           // of a message: all MPIs send so few at once, without waiting for the receiver
constexpr double kAskEvery = 0.25;  // seconds
constexpr double kGrace = 0.25;     // for an answer that has come, but not through MPI yet
constexpr double kDoze = 0.4;       // longer than from one question to the next
constexpr auto kNap = std::chrono::microseconds(500);

constexpr char kQuestion = 'q';
constexpr char kEnd = 'e';
constexpr char kVerdict = 'v';

bool test(MPI_Request& request) {
  int done = 0;
  check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
  return done != 0;
}

/// "rank 2 of 4 is", "ranks 2 and 3 of 4 are", "16 of 64 ranks, from rank 8 on, are"
std::string ranks_are(const std::vector<int>& ranks, std::size_t size) {
  constexpr std::size_t kMostNamed = 8;
  const std::string of_size = " of " + std::to_string(size);
  if (ranks.size() == 1) return "rank " + std::to_string(ranks[0]) + of_size + " is";
  if (ranks.size() > kMostNamed) {
    return std::to_string(ranks.size()) + of_size + " ranks, from rank " + std::to_string(ranks[0]) + " on, are";
  }
  std::string text = "ranks " + std::to_string(ranks[0]);
  for (std::size_t i = 1; i < ranks.size(); ++i) {
    text += (i + 1 == ranks.size() ? " and " : ", ") + std::to_string(ranks[i]);
  }
  return text + of_size + " are";
}

/// Its buffer may then go.
void cancel(MPI_Request& request) {
  if (request == MPI_REQUEST_NULL) return;
  MPI_Cancel(&request);
  MPI_Wait(&request, MPI_STATUS_IGNORE);  // local: a receive has come or is cancelled
}

}  // namespace

RollCall::RollCall(MPI_Comm comm, Index first_waiting, double deadline_seconds, std::string place)
    : comm_(comm),
      first_waiting_(first_waiting),
      deadline_(deadline_seconds),
      every_(std::min(kAskEvery, deadline_seconds / 4)),
      place_(std::move(place)) {
  const int size = size_of(comm);
  if (rank_of(comm) != 0) return;
  for (int rank = 1; rank < size; ++rank) others_.push_back({rank});
}

RollCall::~RollCall() {
  for (Other& other : others_) cancel(other.answer);
}

void RollCall::ask() {
  const Clock::time_point now = Clock::now();
  if (is_missing_somebody() || Seconds(now - last_).count() < every_) return;
  last_ = now;
  for (Other& other : others_) {
    if (other.rank >= first_waiting_ && has_answered(other)) question(other);
  }
  judge();
}

void RollCall::throw_if_missing() const {
  if (is_missing_somebody()) throw TimeoutError(verdict_);
}

void RollCall::during(const std::function<void()>& work) {
  std::exception_ptr failure;
  try {
    work();
  } catch (const TimeoutError& error) {
    tell_those_who_wait(error.what());
    throw;
  } catch (...) {
    failure = std::current_exception();
  }
  end();
  if (failure) std::rethrow_exception(failure);
}

bool RollCall::has_answered(Other& other) { return other.answer == MPI_REQUEST_NULL || test(other.answer); }

void RollCall::question(Other& other) {
  check(MPI_Irecv(nullptr, 0, MPI_BYTE, other.rank, kTag, comm_, &other.answer), "MPI_Irecv");
  send(kQuestion, "", other.rank);
  other.asked = Clock::now();
}

/// Finds out who has not answered in time.
void RollCall::judge() {
  const auto is_late = [&](Other& other) {
    return other.answer != MPI_REQUEST_NULL && Seconds(Clock::now() - other.asked).count() > deadline_ &&
           !has_answered(other);
  };
  if (std::none_of(others_.begin(), others_.end(), is_late)) return;
  const Clock::time_point begin = Clock::now();
  while (std::any_of(others_.begin(), others_.end(), is_late) && Seconds(Clock::now() - begin).count() < kGrace) {
    sched_yield();
  }
  std::vector<int> missing;
  for (Other& other : others_) {
    if (is_late(other)) missing.push_back(other.rank);
  }
  if (missing.empty()) return;
  std::array<char, 32> seconds{};
  std::snprintf(seconds.data(), seconds.size(), "%g s", deadline_);
  verdict_ = place_ + ": " + ranks_are(missing, others_.size() + 1) + " missing: no answer within the deadline of " +
             seconds.data();
}

void RollCall::end() {
  if (rank_of(comm_) != 0) return wait_for_end();
  if (!is_missing_somebody()) call_all();
  const char kind = is_missing_somebody() ? kVerdict : kEnd;
  for (Other& other : others_) send(kind, verdict_, other.rank);  // who is missing may come late
  throw_if_missing();
}

/// Until each of the others has answered a question that it was asked from now on, or one is missing. Who has answered is
/// asked again, every now and then, so that it does not run out of patience with rank 0.
void RollCall::call_all() {
  const auto is_done = [&](Other& other) { return other.is_here && has_answered(other); };
  last_ = {};
  while (!is_missing_somebody() && !std::all_of(others_.begin(), others_.end(), is_done)) {
    const bool is_time = Seconds(Clock::now() - last_).count() > every_;
    if (is_time) last_ = Clock::now();
    for (Other& other : others_) {
      if (!has_answered(other) || (other.is_here && !is_time)) continue;
      question(other);
      other.is_here = true;  // once it has answered
    }
    judge();
    sched_yield();
  }
}

void RollCall::wait_for_end() {
  for (;;) {
    const std::string message = receive();
    if (message.front() == kEnd) return;
    if (message.front() == kVerdict) throw TimeoutError(message.substr(1));
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Isend(nullptr, 0, MPI_BYTE, 0, kTag, comm_, &request), "MPI_Isend");
    wait(comm_, request, place_.c_str());
  }
}

/// The next message of rank 0. A doze first: a wait with a deadline begins with a tenth of a second in which it keeps a core
/// busy, and one message follows the other here.
std::string RollCall::receive() {
  std::array<char, kMostBytes> text{};
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Irecv(text.data(), kMostBytes, MPI_BYTE, 0, kTag, comm_, &request), "MPI_Irecv");
  const Clock::time_point begin = Clock::now();
  bool is_there = test(request);
  try {
    while (!is_there && Seconds(Clock::now() - begin).count() < std::min(kDoze, 1.5 * every_)) {
      std::this_thread::sleep_for(kNap);
      is_there = test(request);
    }
    if (!is_there) wait(comm_, request, place_.c_str());
  } catch (const Error&) {
    // Rank 0 may have gone right after its verdict, and that it has left was heard first.
    if (!test(request)) {
      cancel(request);
      throw;
    }
  }
  return text.data();
}

void RollCall::send(char kind, const std::string& text, int rank) const {
  const std::string message = kind + text.substr(0, kMostBytes - 2);
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Isend(message.c_str(), static_cast<int>(message.size() + 1), MPI_BYTE, rank, kTag, comm_, &request),
        "MPI_Isend");
  wait(comm_, request, place_.c_str());
}

void RollCall::tell_those_who_wait(const std::string& text) noexcept {
  try {
    for (Other& other : others_) {
      if (other.rank >= first_waiting_) send(kVerdict, text, other.rank);
    }
  } catch (...) {  // they have a deadline of their own
  }
}

}  // namespace syncbn::train
