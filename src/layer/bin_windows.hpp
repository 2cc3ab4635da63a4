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
      for_each_strip([&](Index from, Index width) { open(extremes, from, width); });
      is_fresh_ = false;
    }
    Index from = 0;
    while ((from = deposit_from(columns(0), columns(channels_), from)) < channels_) {
      const Index width = std::min(kernels::kStrip, channels_ - from);
      if (raise_to(extremes, from, width, kAllRows)) continue;
      deposit_singly(expand(from, width), from);
      from += width;
      if (from == channels_) break;
    }
    last_top_.assign(view_.top, view_.top + 2 * channels_);
  }

 private:
  /// Windows are opened for the first few rows: with few exceptions, which stop the kernels, they suit the others too.
  /// Fewer will do where they ask for the windows that the pass before has ended with.
  static constexpr Index kRowsToOpen = 64;
  static constexpr Index kRowsToOpenAgain = 16;
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
  template <class Extremes>
  void open(const Extremes& extremes, Index from, Index width) {
    if (last_top_.size() == static_cast<std::size_t>(2 * channels_)) {
      raise_to(extremes, from, width, kRowsToOpenAgain);
      if (has_last_windows(from, width) && has_last_windows(channels_ + from, width)) return;
    }
    raise_to(extremes, from, width, kRowsToOpen);
  }
  bool has_last_windows(Index first, Index width) const {
    return std::equal(view_.top + first, view_.top + first + width, last_top_.data() + first);
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
  bool is_fresh_ = true;                // no window has been opened yet
  std::vector<double> magic_;           // (2C) kernels::BinColumns
  std::vector<std::int16_t> last_top_;  // (2C) after the last deposit
};

}  // namespace syncbn::layer
