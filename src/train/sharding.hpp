// SPDX-License-Identifier: MIT
// How the samples of a global batch are handed to ranks: mixed, sorted by class, or with a class mix for each unit.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "dataset.hpp"
#include "units.hpp"

namespace syncbn::train {

class CounterRandom;

/// A way to hand out. Ranks that see other classes than the batch has are what local batch norm suffers from.
struct Sharding {
  enum class Kind {
    iid,        ///< In the shuffled order of the epoch.
    by_class,   ///< Sorted by label: each unit has as few classes as can be.
    dirichlet,  ///< Each unit has a class mix of its own, for the whole training.
  };
  Kind kind = Kind::iid;
  /// Of the symmetric Dirichlet distribution of mixes; positive. Small: few classes, large: all alike.
  double alpha = 0;

  /// "iid", "by-class" or "dirichlet:ALPHA". Throws UsageError.
  static Sharding parse(const std::string& text);
  std::string name() const;
};

/// A positive number that may be far outside of a double's range: mantissa * 2^exponent.
struct ScaledNumber {
  double mantissa = 1;  ///< In [1, 2).
  double exponent = 0;  ///< A whole number.
};

using ClassMix = std::array<ScaledNumber, kClassCount>;  ///< In proportion; the sum is any.
using ClassMixes = std::array<ClassMix, kUnitCount>;

/// Class mixes from a symmetric Dirichlet distribution: gamma variates of shape `alpha`, as only their ratios matter. For
/// small shapes most would be below the smallest double, and what a unit gets once its first wish is used up would be lost.
/// Depends on its arguments alone, up to how this machine rounds log(), cos() and exp2().
ClassMixes draw_class_mixes(double alpha, std::uint64_t seed);

/// Hands out global batches: permutes the samples of each, so that those of a unit have the classes that a Sharding asks
/// for. Which samples a batch has stays as it is.
class SampleDealer {
 public:
  /// `labels` (of all samples) is borrowed. `mixes` are for Kind::dirichlet.
  SampleDealer(const Sharding& sharding, const std::vector<std::uint8_t>& labels, std::uint64_t seed,
               const ClassMixes& mixes)
      : sharding_(sharding), labels_(labels), seed_(seed), mixes_(mixes) {}

  /// @param order  An epoch's samples, cut into batches of `batch`; the last may be smaller. Permuted in each batch.
  ///
  /// Depends on the arguments here and of the constructor alone: additions, products and comparisons of doubles, so no
  /// machine has another result, and no number of ranks. Cost: about 10 operations a sample and class; no message.
  void deal(std::vector<Index>& order, Index batch, Index epoch) const;

 private:
  void sort_by_class(Index* samples, Index count) const;
  void deal_by_mixes(Index* samples, Index count, const CounterRandom& random) const;

  Sharding sharding_;
  const std::vector<std::uint8_t>& labels_;
  std::uint64_t seed_;
  ClassMixes mixes_;
};

}  // namespace syncbn::train
