// SPDX-License-Identifier: MIT
// Numbers that training changes, and their gradients.
#pragma once

#include <string>

#include "buffer.hpp"

namespace syncbn::train {

/// What a gradient slot stands for, hence how slots become the gradient of the global batch.
enum class GradientScope {
  unit,    ///< One slot per unit of this rank: sum over units and ranks.
  rank,    ///< One slot, this rank's samples: sum over ranks.
  global,  ///< One slot, the whole batch already, the same on all ranks: take it as it is.
};

/// A view of values that a module owns, with the gradients that its backward() leaves.
template <class T>
struct Parameter {
  std::string name;     ///< For people.
  T* values = nullptr;  ///< (size)
  Index size = 0;
  double initial_bound = 0;  ///< Initial values are uniform between -bound and bound; 0: stays as its module made it.
  bool decays = false;       ///< Takes weight decay: weights do, biases, gamma and beta do not.
  GradientScope scope = GradientScope::unit;
  Index slots = 0;  ///< Filled by the last backward().

  T* gradient(Index slot) noexcept { return gradients_.data() + slot * stride(); }
  const T* gradient(Index slot) const noexcept { return gradients_.data() + slot * stride(); }

  /// Makes `count` slots, each on a kAlignment boundary; values unspecified.
  void set_slots(Index count) {
    slots = count;
    gradients_.resize(static_cast<std::size_t>(count * stride()));
  }

 private:
  Index stride() const noexcept {
    constexpr Index kLine = static_cast<Index>(kAlignment / sizeof(T));
    return (size + kLine - 1) / kLine * kLine;
  }

  Buffer<T> gradients_;
};

}  // namespace syncbn::train
