// SPDX-License-Identifier: MIT
// Deposits through the fast kernels, with the windows opened and raised as the
// values need it.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/kernels.hpp"
#include "statistics/bins_block.hpp"

namespace syncbn::layer {

/// Two accumulators per channel, first all a's, then all b's: a BinsView of
/// size 2C, with what the kernels must know of its windows.
class BinWindows {
 public:
  BinWindows() = default;

  /// Starts on `block`, which holds 2C accumulators or one more, for values
  /// that come from data of `type` and belong to `source`. Keeps its storage.
  void attach(std::byte* block, Index channels, DataType type, std::int64_t source);

  /// Runs `deposit(a, b, from)`, a deposit kernel, over all channels. Where it
  /// stops, `expand(from, width)` must give the pairs of that strip; its
  /// windows are raised, or, if no kernel can take its values, they are
  /// deposited one by one.
  template <class Deposit, class Expand>
  void deposit(const Deposit& deposit_from, const Expand& expand) {
    Index from = 0;
    for (;;) {
      from = deposit_from(columns(0), columns(channels_), from);
      if (from == channels_) return;
      const Index width = std::min(kernels::kStrip, channels_ - from);
      if (!make_room(expand(from, width), from)) from += width;
      if (from == channels_) return;
    }
  }

 private:
  kernels::BinColumns columns(Index first) const { return {view_.bin + first, view_.size, magic_.data() + first}; }
  /// Raises windows for the pairs of a strip. False if that is not enough for
  /// the kernels: then the pairs are deposited.
  bool make_room(const kernels::PairRows& strip, Index from);
  bool raise(Index accumulator, const double* values, Index rows, Index stride);
  void set_window(Index accumulator);

  statistics::BinsView view_ = {};
  std::byte* block_ = nullptr;
  std::int64_t source_ = 0;
  Index channels_ = 0;
  bool is_from_f32_ = true;
  std::vector<double> magic_;  // (2C) kernels::BinColumns
};

}  // namespace syncbn::layer
