// SPDX-License-Identifier: MIT
// Deposits through the fast kernels, with the windows opened and raised as the values need it.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels/kernels.hpp"
#include "statistics/bins_block.hpp"

namespace syncbn::layer {

/// Two accumulators per channel, first all a's, then all b's: a BinsView of size 2C, with what the kernels must know of
/// its windows.
class BinWindows {
 public:
  /// Starts on `block`, which holds 2C accumulators or one more, for values that come from data of `type` and belong to
  /// `source`. Keeps its storage.
  void attach(std::byte* block, Index channels, DataType type, std::int64_t source);

  /// Runs deposit_from(a, b, from), a deposit kernel, over all channels. Where it stops the windows of that strip are
  /// raised to its extremes(from, width, most rows, StripExtremes&). If no kernel can take its values, they are deposited one by
  /// one from expand(from, width), which gives the strip's PairRows.
  template <class Deposit, class Extremes, class Expand>
  void deposit(const Deposit& deposit_from, const Extremes& extremes, const Expand& expand) {
    if (is_fresh_) {  // the kernels would stop at every strip
      for_each_strip([&](Index from, Index width) { raise_to(extremes, from, width, kRowsToOpen); });
      is_fresh_ = false;
    }
    Index from = 0;
    while ((from = deposit_from(columns(0), columns(channels_), from)) < channels_) {
      const Index width = std::min(kernels::kStrip, channels_ - from);
      if (raise_to(extremes, from, width, kAllRows)) continue;
      deposit_singly(expand(from, width), from);
      from += width;
      if (from == channels_) return;
    }
  }

 private:
  /// Windows are opened for the first few rows: with few exceptions, which stop the kernels, they suit the others too.
  static constexpr Index kRowsToOpen = 64;
  static constexpr Index kAllRows = std::numeric_limits<Index>::max();

  kernels::BinColumns columns(Index first) const { return {view_.bin + first, view_.size, magic_.data() + first}; }
  template <class Visit>
  void for_each_strip(const Visit& visit) const {
    for (Index from = 0; from < channels_; from += kernels::kStrip) {
      visit(from, std::min(kernels::kStrip, channels_ - from));
    }
  }
  template <class Extremes>
  bool raise_to(const Extremes& extremes, Index from, Index width, Index rows) {
    kernels::StripExtremes largest;
    extremes(from, width, rows, largest);
    const bool kernels_can_a = raise(from, width, largest.a);
    return raise(channels_ + from, width, largest.b) && kernels_can_a;
  }
  bool raise(Index first, Index width, const double* largest);
  void deposit_singly(const kernels::PairRows& strip, Index from);
  bool is_closed(Index first, Index width) const;
  void set_window(Index accumulator);

  statistics::BinsView view_ = {};
  std::byte* block_ = nullptr;
  std::int64_t source_ = 0;
  Index channels_ = 0;
  bool is_from_f32_ = true;
  bool is_fresh_ = true;       // no window has been opened yet
  std::vector<double> magic_;  // (2C) kernels::BinColumns
};

}  // namespace syncbn::layer
