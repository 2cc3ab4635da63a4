// SPDX-License-Identifier: MIT
// What a group of ranks can do together. One implementation a transport.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>

namespace syncbn::comm {

/// Combines the message `in` into `inout`, both `bytes` long. Must be commutative to the bit: merge(a, b) and merge(b,
/// a) leave the same bytes, because two ranks may do the same merge from their two sides.
using Merge = void (*)(const std::byte* in, std::byte* inout, std::size_t bytes);

/// A group of ranks. All functions but rank() and size() are collective; they throw MpiError when a call fails.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;

  /// The same ranks with a message space of their own.
  virtual std::unique_ptr<Transport> duplicate() const = 0;

  /// message <- the merge of all ranks' messages, equal on all ranks. `bytes` and `merge` must be equal on all ranks.
  virtual void all_reduce(std::byte* message, std::size_t bytes, Merge merge) = 0;

  /// all <- every rank's `bytes` bytes, in the order of ranks; `all` holds size() times `bytes`.
  virtual void all_gather(const std::byte* mine, std::size_t bytes, std::byte* all) = 0;

  /// data <- root's data.
  virtual void broadcast(std::byte* data, std::size_t bytes, int root) = 0;

 protected:
  Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
};

/// One process: every operation leaves its data alone.
class SingleTransport final : public Transport {
 public:
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }
  std::unique_ptr<Transport> duplicate() const override { return std::make_unique<SingleTransport>(); }
  void all_reduce(std::byte*, std::size_t, Merge) override {}
  void all_gather(const std::byte* mine, std::size_t bytes, std::byte* all) override { std::copy_n(mine, bytes, all); }
  void broadcast(std::byte*, std::size_t, int) override {}
};

}  // namespace syncbn::comm
