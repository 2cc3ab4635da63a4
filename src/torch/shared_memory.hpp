// SPDX-License-Identifier: MIT
// An all-gather for processes of one host: messages of a process group pass through several threads of each process and take
// hundreds of microseconds, through memory that both see a few.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace syncbn_torch {

class SharedMemory {
 public:
  /// all <- every process's `bytes` bytes in the order of ranks. Throws.
  using Gather = std::function<void(const void* mine, size_t bytes, void* all)>;

  /// Memory that all `size` processes have mapped, or null on all of them: where they are on several hosts, where there is no
  /// room, or where SYNCBN_SHARED_MEMORY is 0 in one of them. Collective, two messages by `gather`. Nothing is left in
  /// /dev/shm.
  static std::unique_ptr<SharedMemory> open(int rank, int size, const Gather& gather,
                                            std::chrono::duration<double> deadline);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  /// Throws if a process has ended, has given up, gathers another number of bytes, or has not come when the deadline is over:
  /// in this round all processes throw, or none. From then on it always throws.
  void all_gather(const void* mine, size_t bytes, void* all);

 private:
  struct Board;
  struct Place;
  struct Reason;
  class Mapping;
  class Name;
  class Watch;

  SharedMemory(int rank, int size, std::unique_ptr<Mapping> mapping, std::chrono::duration<double> deadline);
  void gather(const std::byte* mine, size_t bytes, std::byte* all);
  void arrive();
  void wait_for_all();
  void give_up_if_hopeless(std::chrono::duration<double> waited);
  void break_up();
  [[noreturn]] void throw_because(Reason reason) const;
  [[noreturn]] void throw_broken() const;
  bool is_complete(uint32_t arrivals) const;
  Place& place(int rank) const;
  std::byte* slot(int rank) const;

  int rank_;
  int size_;
  std::unique_ptr<Mapping> mapping_;
  Board& board_;
  std::chrono::duration<double> deadline_;  ///< Of a round.
  std::vector<std::unique_ptr<Watch>> watches_;
  uint32_t round_ = 0;
  int spins_ = 1500;  ///< Looks before it sleeps: about 30 us, more than a message takes and less than being woken up.
};

}  // namespace syncbn_torch
