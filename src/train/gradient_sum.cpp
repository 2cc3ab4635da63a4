// SPDX-License-Identifier: MIT
#include "gradient_sum.hpp"

#include <algorithm>

#include "collectives.hpp"

namespace syncbn::train {

GradientSum::GradientSum(MPI_Comm comm, Index size) : comm_(comm), sums_(static_cast<std::size_t>(size), 0.0) {}

void GradientSum::clear() { std::fill(sums_.begin(), sums_.end(), 0.0); }

void GradientSum::all_reduce() { all_reduce_sum(comm_, sums_.data(), static_cast<Index>(sums_.size())); }

}  // namespace syncbn::train
