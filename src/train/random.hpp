// SPDX-License-Identifier: MIT
// Counter-based random numbers: number i of a stream depends on (seed, stream, i) alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace syncbn::train {

/// A stream of random numbers with random access. The same numbers on every rank, machine and compiler: integers only,
/// then one exact conversion.
/// Source: the mixing function is Steele, Lea & Flood 2014 (SplitMix), variant 13 of Stafford's constants.
class CounterRandom {
 public:
  CounterRandom(std::uint64_t seed, std::uint64_t stream) noexcept : key_(mix(mix(seed + kStep) ^ (stream * kStep))) {}

  /// Number `index`, 64 bits.
  std::uint64_t bits(std::uint64_t index) const noexcept { return mix(key_ + (index + 1) * kStep); }

  /// Number `index`, in [0, 1), a multiple of 2^-53.
  double uniform(std::uint64_t index) const noexcept { return static_cast<double>(bits(index) >> 11) * 0x1p-53; }

  /// Number `index`, in [low, high).
  double uniform(std::uint64_t index, double low, double high) const noexcept {
    return low + (high - low) * uniform(index);
  }

  /// Number `index`, in 0 .. count - 1; count < 2^32.
  std::uint64_t below(std::uint64_t index, std::uint64_t count) const noexcept {
    return ((bits(index) >> 32) * count) >> 32;
  }

  /// A stream of its own for each `stream` number.
  CounterRandom substream(std::uint64_t stream) const noexcept { return CounterRandom(key_, stream); }

 private:
  static constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15u;  // 2^64 / golden ratio

  static std::uint64_t mix(std::uint64_t z) noexcept {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  std::uint64_t key_;
};

/// Into a random order: Fisher & Yates. Uses numbers 2 .. count; count < 2^32.
template <class T>
void shuffle(std::vector<T>& values, const CounterRandom& random) {
  for (std::size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.below(i, i)]);
}

}  // namespace syncbn::train
