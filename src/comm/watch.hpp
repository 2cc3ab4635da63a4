// SPDX-License-Identifier: MIT
// Waiting, so that nobody waits for ever: the deadline, and how the ranks find out together what is wrong.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "comm/note.hpp"
#include "comm/transport.hpp"

namespace syncbn::comm {

/// "2.5 s"
std::string seconds_text(double seconds);

/// Something that a rank waits for.
class Awaited {
 public:
  virtual bool test() = 0;
  /// "[BatchNorm 'bn1' forward] at round 3"
  virtual std::string place() const = 0;
  /// If the channel's round number `rounds` (from 0) is what is awaited, a rank that left after fewer will not come.
  virtual bool needs(std::int32_t channel, std::int64_t rounds_of_leaver) const = 0;
  /// True if this rank is in step with any others: it answers in whatever round they are.
  virtual bool fits_all() const { return false; }
  /// The channel's number; layers of one name are told apart by it. -1: none.
  virtual std::int32_t channel() const { return -1; }

 protected:
  ~Awaited() = default;
};

/// The watch of one group of ranks, shared by all that communicates in it.
///
/// While all goes well it costs one probe for notes each round. A rank whose deadline passes tells the lowest ranks (a
/// committee of 16) where it waits; whoever gets such a note and waits, too, answers with its own place, and the members
/// of the committee ask everybody. After half a second the lowest member that is alive says who is missing, or who waits
/// where; its verdict is the error that all ranks throw, a rank that comes later included. From then on the group has
/// failed and no operation in it is begun any more.
class Watch {
 public:
  Watch(Transport& transport, double deadline_seconds) : transport_(transport), deadline_(deadline_seconds) {}

  /// Returns when `awaited` is done. Throws what the group has failed with: TimeoutError, MismatchError, MpiError.
  void wait(Awaited& awaited);

  /// Throws if the group has failed.
  void throw_if_failed();
  bool has_failed() const noexcept { return has_failed_.load(std::memory_order_acquire); }

  /// An error of this rank's, of which no message can tell the others: they get it by notes, and throw the same.
  [[noreturn]] void fail_all(ErrorCode code, const std::string& text);

  /// Calls f(). If that throws MpiError, all ranks fail with it.
  template <class Call>
  auto call(const Awaited& at, const Call& f) {
    try {
      return f();
    } catch (const MpiError& error) {
      if (has_failed()) throw;
      fail_all(error.code(), words_for(at, error));
    }
  }

  /// This rank will take part in no further round of a channel: an exception has destroyed its owner.
  void say_left(std::int32_t channel, std::int64_t rounds, const std::string& who) noexcept;

  /// Tells ranks that wait for this one that it is busy: their deadlines start again. At most a note a second is sent to each, or four in
  /// the time of the deadline.
  void say_alive();

  double deadline() const noexcept { return deadline_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Place {
    std::string text;
    double deadline;  // that this rank waits for others, in seconds
    bool fits_all;
    std::int32_t channel;

    bool is_same(const Place& other) const { return text == other.text && channel == other.channel; }
  };
  using Places = std::map<int, Place>;  // by rank

  std::string words_for(const Awaited& at, const Error& error) const;
  void listen(const Awaited& awaited);
  void wait_unguarded(Awaited& awaited);
  bool take_alive();
  Clock::time_point last_listened() const {
    return Clock::time_point(Clock::duration(last_listened_.load(std::memory_order_relaxed)));
  }
  void check_left(const Awaited& awaited);
  void sort_note(const Note& note, Places& places);
  [[noreturn]] void inquire(const Awaited& awaited, Places places);
  void collect(Places& places, double seconds);
  Note verdict_on(const Places& places) const;
  void post_to_all(const Note& note) noexcept;
  void accept_verdict(ErrorCode code, const std::string& text);
  [[noreturn]] void throw_failure();

  Transport& transport_;
  double deadline_;
  std::atomic<bool> has_failed_{false};
  std::atomic<Clock::rep> last_listened_{0};  // since the clock's epoch
  std::recursive_mutex mutex_;                // of what follows
  ErrorCode code_ = ErrorCode::none;
  std::string text_;
  bool is_new_ = false;  // the failure has not been thrown yet
  std::vector<Note> left_;
  bool has_heard_alive_ = false;
  Clock::time_point said_alive_{};
};

}  // namespace syncbn::comm
