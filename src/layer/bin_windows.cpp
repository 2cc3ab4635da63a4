// SPDX-License-Identifier: MIT
#include "layer/bin_windows.hpp"

#include <cmath>
#include <limits>

namespace syncbn::layer {
namespace {

using statistics::kBinWidth;

/// Tops whose bins the kernels can cut with normal doubles, from the magic
/// number of the top bin to the unit of the lowest.
bool kernels_can_cut(int top, int bins) { return kBinWidth * top + 53 < 1023 && kBinWidth * (top - bins + 1) > -1022; }

}  // namespace

void BinWindows::attach(std::byte* block, Index channels, DataType type, std::int64_t source) {
  block_ = block;
  source_ = source;
  view_ = statistics::view_of(block);
  channels_ = channels;
  is_from_f32_ = type != DataType::f64;
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
    magic = kernels_can_cut(top, view_.bins) ? std::ldexp(kMagic, kBinWidth * top) : kNothingFits;
  }
}

/// Opens the accumulator's window for a column of values. False if the column
/// is not for the kernels.
bool BinWindows::raise(Index accumulator, const double* values, Index rows, Index stride) {
  double least = 0.0;
  double largest = 0.0;
  for (Index r = 0; r < rows; ++r) {
    const double value = values[r * stride];
    if (!std::isfinite(value)) return false;
    least = std::min(least, value);
    largest = std::max(largest, value);
  }
  for (const double extreme : {least, largest}) {
    if (extreme != 0.0) statistics::raise_window(view_, accumulator, statistics::top_for(extreme));
  }
  set_window(accumulator);
  return std::isfinite(magic_[static_cast<std::size_t>(accumulator)]);
}

bool BinWindows::make_room(const kernels::PairRows& strip, Index from) {
  bool kernels_can = true;
  for (Index c = 0; c < strip.channels; ++c) {
    kernels_can &= raise(from + c, strip.a + c, strip.rows, strip.stride);
    kernels_can &= raise(channels_ + from + c, strip.b + c, strip.rows, strip.stride);
  }
  if (kernels_can) return true;
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
  return false;
}

}  // namespace syncbn::layer
