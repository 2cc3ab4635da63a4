// SPDX-License-Identifier: MIT
// What a group of ranks can do together. One implementation a transport.
#pragma once

#include <cstddef>
#include <memory>

#include "comm/note.hpp"
#include "syncbn/communicator.hpp"

namespace syncbn::comm {

/// Combines the message `in` into `inout`, both `bytes` long. Must be commutative to the bit: merge(a, b) and merge(b,
/// a) leave the same bytes, because two ranks may do the same merge from their two sides.
using Merge = void (*)(const std::byte* in, std::byte* inout, std::size_t bytes);

/// A sequence of operations of all ranks of a group, one after the other. At most one is in flight; its buffers must stay
/// as they are until test() has said that it is done, for ever if it never does.
///
/// All functions throw MpiError when a call fails; the channel is of no use then.
class Channel {
 public:
  virtual ~Channel() = default;

  /// message <- the merge of all ranks' messages, equal on all ranks. All arguments but the pointer must be equal on all
  /// ranks.
  virtual void start_merge(std::byte* message, std::size_t bytes, Merge merge, Exchange exchange) = 0;

  /// data <- root's data.
  virtual void start_broadcast(std::byte* data, std::size_t bytes, int root) = 0;

  /// Is nothing in flight any more? To be asked again and again: it is what makes an operation go on.
  virtual bool test() = 0;

  /// The channel will not be used again, and its destructor must not wait or free anything that a rank might still be
  /// writing to.
  virtual void give_up() noexcept = 0;

 protected:
  Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
};

/// A group of ranks.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;

  /// A channel of its own, whose opening is its first operation: in flight until test() says otherwise. Collective.
  virtual std::unique_ptr<Channel> open_channel() = 0;
  /// Are channels independent of each other, so that operations of several may be in flight, in any order?
  virtual bool has_independent_channels() const noexcept = 0;

  /// Sends a note to one rank, or takes one that has come. Neither waits. A transport that has no notes loses them.
  virtual void post(const Note& note, int to) = 0;
  virtual bool receive(Note& note) = 0;

  /// As Channel::give_up().
  virtual void give_up() noexcept {}

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
  std::unique_ptr<Channel> open_channel() override { return std::make_unique<SingleChannel>(); }
  bool has_independent_channels() const noexcept override { return true; }
  void post(const Note&, int) override {}
  bool receive(Note&) override { return false; }

 private:
  class SingleChannel final : public Channel {
   public:
    void start_merge(std::byte*, std::size_t, Merge, Exchange) override {}
    void start_broadcast(std::byte*, std::size_t, int) override {}
    bool test() override { return true; }
    void give_up() noexcept override {}
  };
};

}  // namespace syncbn::comm
