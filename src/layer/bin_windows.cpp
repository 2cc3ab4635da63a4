// SPDX-License-Identifier: MIT
#include "layer/bin_windows.hpp"

#include <cmath>
#include <limits>

namespace syncbn::layer {
namespace {

using statistics::kBinWidth;

/// Tops whose bins the kernels can cut with normal doubles, from the magic number of the top bin to the unit of the
/// lowest.
bool kernels_can_cut(int top, int bins) { return kBinWidth * top + 53 < 1023 && kBinWidth * (top - bins + 1) > -1022; }

}  // namespace

void BinWindows::attach(std::byte* block, Index channels, DataType type, std::int64_t source) {
  block_ = block;
  source_ = source;
  view_ = statistics::view_of(block);
  channels_ = channels;
  is_from_f32_ = type != DataType::f64;
  is_fresh_ = true;
  magic_.resize(static_cast<std::size_t>(view_.size));
  for (Index i = 0; i < view_.size; ++i) set_window(i);
}

void BinWindows::set_window(Index accumulator) {
  constexpr double kMagic = 0x1.8p52 + static_cast<double>(kernels::kTopHalf);
  constexpr double kLeastUnit = 0x1p-1074;
  constexpr double kNothingFits = std::numeric_limits<double>::infinity();
  const int top = view_.top[accumulator];
  double& magic = magic_[static_cast<std::size_t>(accumulator)];
  if (top == statistics::kNoWindow) {
    magic = is_from_f32_ ? kMagic * kLeastUnit : kNothingFits;
  } else {
    magic = kernels_can_cut(top, view_.bins) ? kMagic * statistics::power_of_two(kBinWidth * top) : kNothingFits;
  }
}

/// Opens or raises a window for values up to `largest` in magnitude, of either sign. False if one of them is not
/// finite, if it lies so near the end of a bin's range that its sign decides, or if the window is beyond the kernels.
bool BinWindows::raise(Index accumulator, double largest) {
  if (!std::isfinite(largest)) return false;
  if (largest > 0.0) {
    const std::optional<int> top = statistics::top_for_both_signs(largest);
    if (!top) return false;
    if (*top > view_.top[accumulator]) {
      statistics::raise_window(view_, accumulator, *top);
      set_window(accumulator);
    }
  }
  return std::isfinite(magic_[static_cast<std::size_t>(accumulator)]);
}

bool BinWindows::raise(const kernels::StripExtremes& largest, Index from, Index width) {
  bool kernels_can = true;
  for (Index i = 0; i < width; ++i) {
    kernels_can &= raise(from + i, largest.a[i]);
    kernels_can &= raise(channels_ + from + i, largest.b[i]);
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
