// SPDX-License-Identifier: MIT
// The sum over units and ranks that makes a gradient of the global batch.
#pragma once

#include <vector>

#include <mpi.h>

#include "syncbn/tensor_view.hpp"

namespace syncbn::train {

/// Sums many numbers over all contributions of all ranks: clear(), add() per unit, all_reduce(), read.
///
/// Numerics: doubles, added in the order of add() on a rank and by MPI_SUM between ranks. A sum of up to 32 floats whose
/// exponents (that of zero aside) lie within 24 of each other is exact, hence the same bits however the units are spread
/// over ranks; wider ones are off by a rounding of double, which rounding to float then nearly always removes.
class GradientSum {
 public:
  GradientSum(MPI_Comm comm, Index size);

  void clear();

  /// Adds `count` numbers, one contribution to each of the sums first .. first + count - 1.
  template <class T>
  void add(Index first, const T* values, Index count) {
    double* sums = sums_.data() + first;
    for (Index i = 0; i < count; ++i) sums[i] += static_cast<double>(values[i]);
  }

  /// Collective: one all-reduce. Throws MpiError.
  void all_reduce();

  /// Sum number `index`, after all_reduce(): the same on all ranks.
  double operator[](Index index) const noexcept { return sums_[static_cast<std::size_t>(index)]; }

 private:
  MPI_Comm comm_;
  std::vector<double> sums_;
};

}  // namespace syncbn::train
