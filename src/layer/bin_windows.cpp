// SPDX-License-Identifier: MIT
#include "layer/bin_windows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace syncbn::layer {
namespace {

using statistics::kBinWidth;

/// Tops whose bins the kernels can cut with normal doubles, from the magic number of the top bin to the unit of the
/// lowest.
bool kernels_can_cut(int top, int bins) { return kBinWidth * top + 53 < 1023 && kBinWidth * (top - bins + 1) > -1022; }

/// kernels::BinColumns::magic of a window.
double magic_of(int top, int bins, bool is_from_f32) {
  constexpr double kMagic = 0x1.8p52 + static_cast<double>(kernels::kTopHalf);
  constexpr double kLeastUnit = 0x1p-1074;
  constexpr double kNothingFits = std::numeric_limits<double>::infinity();
  if (top == statistics::kNoWindow) return is_from_f32 ? kMagic * kLeastUnit : kNothingFits;
  return kernels_can_cut(top, bins) ? kMagic * statistics::power_of_two(kBinWidth * top) : kNothingFits;
}

}  // namespace

void BinWindows::attach(std::byte* block, Index channels, DataType type, std::int64_t source) {
  block_ = block;
  source_ = source;
  view_ = statistics::view_of(block);
  channels_ = channels;
  is_from_f32_ = type != DataType::f64;
  is_fresh_ = true;
  magic_.resize(static_cast<std::size_t>(view_.size));
  for (Index i = 0; i < view_.size;) {
    const Index first = i;
    while (++i < view_.size && view_.top[i] == view_.top[first]) continue;
    std::fill(&magic_[first], &magic_[first] + (i - first), magic_of(view_.top[first], view_.bins, is_from_f32_));
  }
}

void BinWindows::set_window(Index accumulator) {
  magic_[static_cast<std::size_t>(accumulator)] = magic_of(view_.top[accumulator], view_.bins, is_from_f32_);
}

bool BinWindows::is_closed(Index first, Index width) const {
  return std::all_of(view_.top + first, view_.top + first + width,
                     [](int top) { return top == statistics::kNoWindow; });
}

/// Opens or raises the windows of `width` accumulators for values up to `largest` in magnitude, of either sign. False
/// if one of them is not finite, if it lies so near the end of a bin's range that its sign decides, or if the window is
/// beyond the kernels.
bool BinWindows::raise(Index first, Index width, const double* largest) {
  const int common_top = statistics::common_top_for_both_signs(largest, width);
  if (common_top != statistics::kNoTop && is_closed(first, width)) {
    const double magic = magic_of(common_top, view_.bins, is_from_f32_);
    for (int k = 0; k < view_.bins; ++k) std::fill_n(view_.bin + k * view_.size + first, width, 0);
    std::fill_n(view_.top + first, width, static_cast<std::int16_t>(common_top));
    std::fill_n(&magic_[first], width, magic);
    return std::isfinite(magic);
  }
  bool kernels_can = true;
  for (Index i = 0; i < width; ++i) {
    const int top = statistics::top_for_both_signs(largest[i]);
    kernels_can &= top != statistics::kNoTop;
    if (top > view_.top[first + i] && top != statistics::kNoTop) {
      statistics::raise_window(view_, first + i, top);
      set_window(first + i);
    }
    kernels_can &= std::isfinite(magic_[static_cast<std::size_t>(first + i)]);
  }
  return kernels_can;
}

void BinWindows::deposit_singly(const kernels::PairRows& strip, Index from) {
  for (Index r = 0; r < strip.rows; ++r) {
    for (Index c = 0; c < strip.channels; ++c) {
      statistics::deposit(block_, from + c, strip.a[r * strip.stride + c], source_);
      statistics::deposit(block_, channels_ + from + c, strip.b[r * strip.stride + c], source_);
    }
  }
  for (Index c = 0; c < strip.channels; ++c) {
    set_window(from + c);
    set_window(channels_ + from + c);
  }
}

}  // namespace syncbn::layer
