// SPDX-License-Identifier: MIT
// Ranks that can do one thing together: gather bytes.
#pragma once

#include <memory>

#include "comm/transport.hpp"

namespace syncbn::comm {

/// The callback waits inside, so an operation is done when it was started, and all channels share it: ranks must start
/// their operations in one order. No notes.
class CallbackTransport final : public Transport {
 public:
  CallbackTransport(int rank, int size, AllGather all_gather);
  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  std::unique_ptr<Channel> open_channel() override;
  bool has_independent_channels() const noexcept override { return false; }
  void post(const Note&, int) override {}
  bool receive(Note&) override { return false; }

 private:
  int rank_;
  int size_;
  std::shared_ptr<AllGather> all_gather_;
};

}  // namespace syncbn::comm
