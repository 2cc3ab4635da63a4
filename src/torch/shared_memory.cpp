// SPDX-License-Identifier: MIT
#include "torch/shared_memory.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace syncbn_torch {
namespace {

/// Of a round, for each process; longer messages take several rounds. The layer's message for 2048 channels has 110 KB.
constexpr size_t kCapacity = size_t{128} << 10;
/// Two sets of slots: who writes round r has seen all in round r - 1, so nobody reads round r - 2 any more.
constexpr uint32_t kSets = 2;
/// After which a sleeper looks whether the others are still alive.
constexpr std::chrono::milliseconds kNap(50);

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Between processes, hence not FUTEX_PRIVATE_FLAG.
void futex(std::atomic<uint32_t>& word, int operation, uint32_t value, const timespec* timeout) {
  static_assert(sizeof(word) == sizeof(uint32_t) && std::atomic<uint32_t>::is_always_lock_free);
  syscall(SYS_futex, &word, operation, value, timeout, nullptr, 0);
}

/// Where process ids mean the same.
uint64_t process_namespace() {
  struct stat status {};
  return ::stat("/proc/self/ns/pid", &status) == 0 ? static_cast<uint64_t>(status.st_ino) : 0;
}

bool is_wanted() {
  const char* value = std::getenv("SYNCBN_SHARED_MEMORY");
  return value == nullptr || std::strcmp(value, "0") != 0;
}

}  // namespace

/// One word decides about each round, so that all take part in it or none: whoever comes adds one, unless somebody has given up
/// before the last one came; and nobody can give up afterwards.
struct SharedMemory::Board {
  alignas(128) std::atomic<uint32_t> arrivals;  ///< Of all rounds, modulo 2^31; kBroken is set for good.
  std::atomic<uint32_t> sleepers;               ///< Processes that sleep until a round is complete.

  static constexpr uint32_t kBroken = uint32_t{1} << 31;
};

/// What a process tells the others.
struct SharedMemory::Place {
  alignas(128) std::atomic<uint32_t> round;  ///< That it has come to; for error messages.
  std::atomic<uint32_t> has_left;
  std::atomic<uint32_t> reason;  ///< Why it gave up: a Reason and the rank that it is about, or 0.
  uint32_t process;
  uint64_t process_namespace;
  uint64_t bytes[kSets];  ///< Of the whole message that the round is a part of.
};

/// Why a process gives up: what it is that another one does, in one word that is written at once.
struct SharedMemory::Reason {
  enum Kind : uint32_t { none = 0, has_ended, has_not_come };
  Kind kind = none;
  int rank = 0;

  static Reason from(uint32_t word) { return {static_cast<Kind>(word >> 28), static_cast<int>(word & 0xfffffff)}; }
  uint32_t word() const { return static_cast<uint32_t>(kind) << 28 | static_cast<uint32_t>(rank); }
};

/// A file in /dev/shm that is there until all have it.
class SharedMemory::Name {
 public:
  explicit Name(int rank) {
    if (rank != 0 || !is_wanted()) return;
    std::random_device random;
    text_ = "/syncbn";
    for (int number = 0; number < 4; ++number) text_.append(".").append(std::to_string(random()));
  }
  ~Name() {
    if (is_made_) shm_unlink(text_.c_str());
  }
  Name(const Name&) = delete;
  Name& operator=(const Name&) = delete;

  const std::string& text() const { return text_; }
  /// A file of so many zeros, with the room for them: or else writing there might be the end of the process.
  bool make(size_t bytes) {
    if (text_.empty()) return false;
    const int file = shm_open(text_.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0) return false;
    is_made_ = true;
    const bool has_room = posix_fallocate(file, 0, static_cast<off_t>(bytes)) == 0;
    close(file);
    return has_room;
  }

 private:
  std::string text_;
  bool is_made_ = false;
};

class SharedMemory::Mapping {
 public:
  static size_t bytes_for(int size) {
    return sizeof(Board) + static_cast<size_t>(size) * (sizeof(Place) + kSets * kCapacity);
  }

  /// Null if there is no such file.
  static std::unique_ptr<Mapping> of(const std::string& name, int size) {
    const int file = name.empty() ? -1 : shm_open(name.c_str(), O_RDWR | O_CLOEXEC, 0);
    if (file < 0) return nullptr;
    void* data = mmap(nullptr, bytes_for(size), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (data == MAP_FAILED) return nullptr;
    return std::unique_ptr<Mapping>(new Mapping(static_cast<std::byte*>(data), size));
  }
  ~Mapping() { munmap(data_, bytes_for(size_)); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  // Zeros are their initial state.
  Board& board() const { return *reinterpret_cast<Board*>(data_); }
  Place* places() const { return reinterpret_cast<Place*>(data_ + sizeof(Board)); }
  std::byte* slots() const { return reinterpret_cast<std::byte*>(places() + size_); }

 private:
  Mapping(std::byte* data, int size) : data_(data), size_(size) {}
  std::byte* data_;
  int size_;
};

/// Tells whether a process has ended, where the kernel can (Linux 5.3); else nobody has until the deadline.
class SharedMemory::Watch {
 public:
  explicit Watch(const Place& place) {
#if defined(SYS_pidfd_open)
    if (place.process_namespace == process_namespace()) {
      file_ = static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(place.process), 0));
    }
#else
    (void)place;
#endif
  }
  ~Watch() {
    if (file_ >= 0) close(file_);
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  bool has_ended() const {
    pollfd events{file_, POLLIN, 0};
    return file_ >= 0 && poll(&events, 1, 0) == 1;
  }

 private:
  int file_ = -1;
};

std::unique_ptr<SharedMemory> SharedMemory::open(int rank, int size, const Gather& gather,
                                                 std::chrono::duration<double> deadline) {
  if (size == 1) return nullptr;
  Name own(rank);
  char text[64] = "";
  if (own.make(Mapping::bytes_for(size))) own.text().copy(text, sizeof(text) - 1);
  std::vector<char> texts(sizeof(text) * static_cast<size_t>(size));
  gather(text, sizeof(text), texts.data());

  std::unique_ptr<Mapping> mapping = is_wanted() ? Mapping::of(texts.data(), size) : nullptr;
  if (mapping != nullptr) {
    Place& place = mapping->places()[rank];
    place.process = static_cast<uint32_t>(getpid());
    place.process_namespace = process_namespace();
  }
  const char has_it = mapping != nullptr ? 1 : 0;
  std::vector<char> have_it(static_cast<size_t>(size));
  gather(&has_it, 1, have_it.data());
  if (std::count(have_it.begin(), have_it.end(), 1) != size) return nullptr;
  return std::unique_ptr<SharedMemory>(new SharedMemory(rank, size, std::move(mapping), deadline));
}

SharedMemory::SharedMemory(int rank, int size, std::unique_ptr<Mapping> mapping, std::chrono::duration<double> deadline)
    : rank_(rank), size_(size), mapping_(std::move(mapping)), board_(mapping_->board()), deadline_(deadline) {
  if (static_cast<unsigned>(size) > std::thread::hardware_concurrency()) spins_ = 1;  // who is awaited needs the core
  for (int other = 0; other < size; ++other) watches_.push_back(std::make_unique<Watch>(place(other)));
}

/// Not in a fork (a DataLoader's worker), which takes no part.
SharedMemory::~SharedMemory() {
  if (place(rank_).process == static_cast<uint32_t>(getpid())) break_up();
}

SharedMemory::Place& SharedMemory::place(int rank) const { return mapping_->places()[rank]; }

std::byte* SharedMemory::slot(int rank) const {
  return mapping_->slots() + (static_cast<size_t>(rank) * kSets + round_ % kSets) * kCapacity;
}

void SharedMemory::all_gather(const void* mine, size_t bytes, void* all) {
  try {
    gather(static_cast<const std::byte*>(mine), bytes, static_cast<std::byte*>(all));
  } catch (...) {
    break_up();
    throw;
  }
}

void SharedMemory::gather(const std::byte* mine, size_t bytes, std::byte* all) {
  size_t from = 0;
  do {
    const size_t piece = std::min(kCapacity, bytes - from);
    ++round_;
    std::memcpy(slot(rank_), mine + from, piece);
    place(rank_).bytes[round_ % kSets] = bytes;
    arrive();
    wait_for_all();
    for (int rank = 0; rank < size_; ++rank) {
      const uint64_t theirs = place(rank).bytes[round_ % kSets];
      if (theirs != bytes) {
        throw std::runtime_error("process " + std::to_string(rank) + " gathers " + std::to_string(theirs) +
                                 " bytes, process " + std::to_string(rank_) + " " + std::to_string(bytes));
      }
      std::memcpy(all + static_cast<size_t>(rank) * bytes + from, slot(rank), piece);
    }
    from += piece;
  } while (from < bytes);
}

/// This round and all before it: nobody comes to the next one earlier.
bool SharedMemory::is_complete(uint32_t arrivals) const {
  const uint32_t missing = round_ * static_cast<uint32_t>(size_) - arrivals;  // modulo 2^31
  return (missing & (Board::kBroken - 1)) == 0 || (missing & (Board::kBroken >> 1)) != 0;
}

/// Who goes to sleep has said so before looking for the last time, and the last one to come looks for sleepers afterwards.
void SharedMemory::arrive() {
  place(rank_).round = round_;
  uint32_t arrivals = board_.arrivals;
  do {
    if ((arrivals & Board::kBroken) != 0) throw_broken();
  } while (!board_.arrivals.compare_exchange_weak(arrivals, (arrivals + 1) & (Board::kBroken - 1)));
  if (is_complete(arrivals + 1) && board_.sleepers > 0) futex(board_.arrivals, FUTEX_WAKE, INT32_MAX, nullptr);
}

void SharedMemory::wait_for_all() {
  for (int i = 0; i < spins_; ++i) {
    if (is_complete(board_.arrivals)) return;
    pause_briefly();
  }
  const timespec nap{0, std::chrono::nanoseconds(kNap).count()};
  const auto begin = std::chrono::steady_clock::now();
  while (true) {
    ++board_.sleepers;
    const uint32_t arrivals = board_.arrivals;
    const bool waits = !is_complete(arrivals) && (arrivals & Board::kBroken) == 0;
    if (waits) futex(board_.arrivals, FUTEX_WAIT, arrivals, &nap);
    --board_.sleepers;
    if (is_complete(board_.arrivals)) return;
    give_up_if_hopeless(std::chrono::steady_clock::now() - begin);
  }
}

/// Throws if somebody has given up, or there is a reason to: unless the last one comes just then.
void SharedMemory::give_up_if_hopeless(std::chrono::duration<double> waited) {
  uint32_t arrivals = board_.arrivals;
  if (is_complete(arrivals)) return;
  if ((arrivals & Board::kBroken) != 0) throw_broken();
  Reason reason;
  for (int rank = 0; rank < size_ && reason.kind == Reason::none; ++rank) {
    if (place(rank).round == round_) continue;
    if (waited > deadline_) reason = {Reason::has_not_come, rank};
    if (watches_[static_cast<size_t>(rank)]->has_ended()) reason = {Reason::has_ended, rank};
  }
  if (reason.kind == Reason::none) return;
  place(rank_).reason = reason.word();  // before anybody can ask why
  place(rank_).has_left = 1;
  if (board_.arrivals.compare_exchange_strong(arrivals, arrivals | Board::kBroken)) throw_because(reason);
  place(rank_).has_left = 0;  // somebody has come since
  place(rank_).reason = 0;
}

void SharedMemory::throw_because(Reason reason) const {
  const std::string who = "process " + std::to_string(reason.rank) + " of " + std::to_string(size_);
  if (reason.kind == Reason::has_ended) throw std::runtime_error(who + " has ended");
  throw std::runtime_error(who + " has not come within " + std::to_string(std::lround(deadline_.count())) + " s");
}

/// In the words of who gave up first, so that all name the same process.
void SharedMemory::throw_broken() const {
  for (int rank = 0; rank < size_; ++rank) {
    const Reason reason = Reason::from(place(rank).reason);
    if (place(rank).has_left != 0 && reason.kind != Reason::none) throw_because(reason);
  }
  for (int rank = 0; rank < size_; ++rank) {
    if (rank == rank_ || place(rank).has_left == 0) continue;
    throw std::runtime_error("process " + std::to_string(rank) + " of " + std::to_string(size_) +
                             " has left the group, or had an error");
  }
  throw std::runtime_error("an earlier exchange has failed");
}

void SharedMemory::break_up() {
  place(rank_).has_left = 1;
  board_.arrivals |= Board::kBroken;
  futex(board_.arrivals, FUTEX_WAKE, INT32_MAX, nullptr);
}

}  // namespace syncbn_torch
