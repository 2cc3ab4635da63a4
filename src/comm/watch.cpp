// SPDX-License-Identifier: MIT
#include "comm/watch.hpp"

#include <algorithm>
#include <cstdio>
#include <thread>
#include <utility>

#include <sched.h>

namespace syncbn::comm {
namespace {

using Seconds = std::chrono::duration<double>;

constexpr int kMissesBeforeYield = 20;
constexpr int kCommittee = 16;  // ranks that may give the verdict: few, so that an inquiry of n ranks is 32 n notes
constexpr double kListenEvery = 0.001;  // seconds
constexpr double kLate = 0.01;          // seconds without having listened
constexpr int kProbesIfLate = 16;
constexpr double kPatience = 0.1;        // seconds of polling
constexpr double kAliveEvery = 1.0;      // seconds
constexpr double kAnswersWithin = 0.5;   // a rank that waits looks at its notes every millisecond
constexpr double kVerdictWithin = 0.35;  // of a lower member of the committee, after that

std::string rank_of(int rank, int size) { return "rank " + std::to_string(rank) + " of " + std::to_string(size); }

/// "rank 2 of 4", "ranks 2, 3, 5 and 17 more of 64"
std::string ranks_of(const std::vector<int>& ranks, int size) {
  if (ranks.size() == 1) return rank_of(ranks.front(), size);
  constexpr std::size_t kMostNamed = 16;
  std::string text = "ranks ";
  for (std::size_t i = 0; i < std::min(ranks.size(), kMostNamed); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(ranks[i]);
  }
  if (ranks.size() > kMostNamed) text += " and " + std::to_string(ranks.size() - kMostNamed) + " more";
  return text + " of " + std::to_string(size);
}

}  // namespace

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%g s", seconds);
  return text;
}

void Watch::wait(Awaited& awaited) {
  call(awaited, [&] { wait_unguarded(awaited); });
}

std::string Watch::words_for(const Awaited& at, const Error& error) const {
  return at.place() + ": " + error.what() + " (" + rank_of(transport_.rank(), transport_.size()) + ")";
}

/// Gives the processor away after some misses: with more ranks than cores a rank that spins keeps the one that it waits
/// for from running (MPICH never yields by itself: 8 ms for a message that then takes 0.1 ms).
void Watch::wait_unguarded(Awaited& awaited) {
  if (transport_.size() == 1) {
    while (!awaited.test()) sched_yield();
    return;
  }
  int misses = 0;
  Clock::time_point begin, listened;
  while (!awaited.test()) {
    if (++misses < kMissesBeforeYield) continue;
    const Clock::time_point now = Clock::now();
    if (misses == kMissesBeforeYield) begin = listened = now;
    if (Seconds(now - listened).count() > kListenEvery) {
      listened = now;
      listen(awaited);
      if (take_alive()) begin = now;
    }
    if (Seconds(now - begin).count() > deadline_) {
      if (awaited.test()) break;  // it came while this rank was kept from running
      const std::lock_guard lock(mutex_);
      inquire(awaited, {});
    }
    if (Seconds(now - begin).count() < kPatience) {
      sched_yield();
    } else {  // the others are busy: leave them the cores
      std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
  }
  // Who comes too late finds the others' messages waiting, and their verdict, too. (Rounds that follow each other within a
  // millisecond are not late.)
  if (has_failed() || Seconds(Clock::now() - last_listened()).count() > kListenEvery) listen(awaited);
}

void Watch::listen(const Awaited& awaited) {
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = Clock::now();
  // A note may lie behind other messages of its sender, of which a probe takes in no more than one (MPICH 4.0).
  int probes = Seconds(now - last_listened()).count() > kLate ? kProbesIfLate : 1;
  last_listened_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
  if (has_failed()) throw_failure();
  Note note;
  Places places;
  while (probes > 0) {
    if (transport_.receive(note)) {
      sort_note(note, places);
    } else {
      --probes;
    }
  }
  if (has_failed()) throw_failure();
  if (!left_.empty()) check_left(awaited);
  if (!places.empty()) inquire(awaited, std::move(places));
}

void Watch::sort_note(const Note& note, Places& places) {
  switch (note.kind) {
    case Note::Kind::waiting:
      places[note.from] = {note.text, note.deadline, note.fits_all != 0, note.channel};
      return;
    case Note::Kind::verdict:
      accept_verdict(note.code, note.text);
      return;
    case Note::Kind::alive:
      has_heard_alive_ = true;
      return;
    case Note::Kind::left:
      left_.push_back(note);
      return;
  }
}

void Watch::check_left(const Awaited& awaited) {
  for (const Note& note : left_) {
    if (!awaited.needs(note.channel, note.rounds)) continue;
    // The same words on every rank: those of the rank that left. Ranks that wait for something else get them from here.
    Note verdict(Note::Kind::verdict, transport_.rank(), note.text);
    verdict.code = ErrorCode::mismatch;
    if (transport_.rank() < kCommittee) post_to_all(verdict);
    accept_verdict(verdict.code, verdict.text);
    throw_failure();
  }
}

/// Called with the mutex held.
void Watch::inquire(const Awaited& awaited, Places places) {
  const int rank = transport_.rank();
  const std::string place = awaited.place();
  places[rank] = {place, deadline_, awaited.fits_all(), awaited.channel()};
  Note mine(Note::Kind::waiting, rank, place);
  mine.deadline = deadline_;
  mine.fits_all = awaited.fits_all();
  mine.channel = awaited.channel();
  const int asked = rank < kCommittee ? transport_.size() : std::min(kCommittee, transport_.size());
  for (int other = 0; other < asked; ++other) {
    if (other != rank) transport_.post(mine, other);
  }
  collect(places, kAnswersWithin);
  const bool is_lowest = rank < kCommittee && places.begin()->first == rank;
  if (!has_failed() && !is_lowest) collect(places, kVerdictWithin);
  if (!has_failed()) {
    check_left(awaited);  // who has found that out already has not answered
    const Note verdict = verdict_on(places);
    post_to_all(verdict);
    accept_verdict(verdict.code, verdict.text);
  }
  throw_failure();
}

/// Takes notes until the time is over or there is a verdict.
void Watch::collect(Places& places, double seconds) {
  const Clock::time_point begin = Clock::now();
  Note note;
  while (!has_failed() && Seconds(Clock::now() - begin).count() < seconds) {
    if (transport_.receive(note)) {
      sort_note(note, places);
    } else {
      sched_yield();
    }
  }
}

Note Watch::verdict_on(const Places& places) const {
  const int size = transport_.size();
  std::vector<int> missing;
  for (int rank = 0; rank < size; ++rank) {
    if (places.find(rank) == places.end()) missing.push_back(rank);
  }
  auto it = std::find_if(places.begin(), places.end(), [](const auto& p) { return !p.second.fits_all; });
  if (it == places.end()) it = places.begin();
  const int first = it->first;
  const std::string& place = it->second.text;
  const auto other = std::find_if(it, places.end(),
                                  [&](const auto& p) { return !p.second.is_same(it->second) && !p.second.fits_all; });
  const auto shortest = std::min_element(
      places.begin(), places.end(), [](const auto& a, const auto& b) { return a.second.deadline < b.second.deadline; });
  const std::string limit = " within the deadline of " + seconds_text(shortest->second.deadline);
  ErrorCode code = ErrorCode::timeout;
  std::string text;
  if (!missing.empty()) {
    text =
        place + ": " + ranks_of(missing, size) + (missing.size() == 1 ? " is" : " are") + " missing: no answer" + limit;
    if (other != places.end()) text += "; rank " + std::to_string(other->first) + " is in " + other->second.text;
  } else if (other != places.end()) {
    code = ErrorCode::mismatch;
    text = "the ranks are out of step: " + rank_of(first, size) + " is in " + place + ", " +
           rank_of(other->first, size) + " is in " + other->second.text +
           (other->second.text == place ? " of another layer" : "") + "; the deadline of " +
           seconds_text(shortest->second.deadline) + " has passed";
  } else {
    const auto joined = std::find_if(places.begin(), places.end(), [](const auto& p) { return p.second.fits_all; });
    text = place + ": all " + std::to_string(size) + " ranks are here, but were not" + limit;
    if (joined != places.end()) {
      text += "; rank " + std::to_string(joined->first) + " is in join(), which answers in layers alone";
    }
  }
  Note verdict(Note::Kind::verdict, transport_.rank(), text);
  verdict.code = code;
  return verdict;
}

void Watch::post_to_all(const Note& note) noexcept {
  try {
    for (int other = 0; other < transport_.size(); ++other) {
      if (other != transport_.rank()) transport_.post(note, other);
    }
  } catch (const Error&) {  // they have deadlines of their own
  }
}

void Watch::accept_verdict(ErrorCode code, const std::string& text) {
  if (has_failed()) return;  // the first one counts
  code_ = code;
  text_ = text;
  is_new_ = true;
  has_failed_.store(true, std::memory_order_release);
}

void Watch::throw_failure() {
  if (std::exchange(is_new_, false)) throw_error(code_, text_);
  throw_error(code_, "the communicator cannot be used any more, since: " + text_);
}

void Watch::throw_if_failed() {
  if (!has_failed()) return;
  const std::lock_guard lock(mutex_);
  throw_failure();
}

void Watch::fail_all(ErrorCode code, const std::string& text) {
  const std::lock_guard lock(mutex_);
  if (!has_failed()) {
    Note verdict(Note::Kind::verdict, transport_.rank(), text);
    verdict.code = code;
    post_to_all(verdict);
    accept_verdict(code, verdict.text);
  }
  throw_failure();
}

bool Watch::take_alive() {
  const std::lock_guard lock(mutex_);
  return std::exchange(has_heard_alive_, false);
}

void Watch::say_alive() {
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = Clock::now();
  const double every = std::min(kAliveEvery, deadline_ / 4);
  if (transport_.size() == 1 || has_failed() || Seconds(now - said_alive_).count() < every) return;
  said_alive_ = now;
  post_to_all(Note(Note::Kind::alive, transport_.rank(), ""));
}

void Watch::say_left(std::int32_t channel, std::int64_t rounds, const std::string& who) noexcept {
  try {
    const std::lock_guard lock(mutex_);
    Note note(Note::Kind::left, transport_.rank(),
              who + " an exception ended it on " + rank_of(transport_.rank(), transport_.size()) + " after " +
                  std::to_string(rounds) + " rounds");
    note.channel = channel;
    note.rounds = rounds;
    post_to_all(note);
  } catch (...) {  // called while another exception is on its way
  }
}

}  // namespace syncbn::comm
