// SPDX-License-Identifier: MIT
// The messages of the trainer that are not batch norm's: sums, broadcasts, and failing together.
#pragma once

#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include <mpi.h>

#include "syncbn/tensor_view.hpp"

namespace syncbn::train {

int rank_of(MPI_Comm comm);
int size_of(MPI_Comm comm);

/// Sums over all ranks, in place, one message. Collective. Throws MpiError.
void all_reduce_sum(MPI_Comm comm, double* values, Index count);
void all_reduce_sum(MPI_Comm comm, std::int64_t* values, Index count);

/// From rank 0 to all. Any number of bytes (1 GiB a message). Collective. Throws MpiError.
void broadcast_bytes(MPI_Comm comm, void* data, Index bytes);

/// all <- every rank's `bytes` bytes (the same number on all), in the order of ranks, on rank 0; `all` is not used elsewhere.
/// Collective: one message. Throws MpiError, and UsageError on all ranks for more than 2 GiB of one rank.
void gather_bytes(MPI_Comm comm, const void* mine, Index bytes, void* all);

template <class T>
void broadcast(MPI_Comm comm, T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  broadcast_bytes(comm, &value, sizeof(T));
}

/// The vector of rank 0, size included.
template <class T, class A>
void broadcast(MPI_Comm comm, std::vector<T, A>& values) {
  static_assert(std::is_trivially_copyable_v<T>);
  auto count = static_cast<Index>(values.size());
  broadcast(comm, count);
  values.resize(static_cast<std::size_t>(count));
  broadcast_bytes(comm, values.data(), count * static_cast<Index>(sizeof(T)));
}

/// Runs `work` on all ranks, then agrees: if it threw on any rank, the error of the first such rank is thrown on all.
/// `work` must not be collective over `comm`; if it takes long on some ranks, those should say still_here() (watched.hpp), or
/// the others wait in a RollCall. A TimeoutError, of work that some ranks do together, is not agreed on but thrown at once.
/// Collective: two small messages.
void all_or_nothing(MPI_Comm comm, const std::function<void()>& work);

/// The same, with `work` for rank 0 alone.
void on_first_rank(MPI_Comm comm, const std::function<void()>& work);

}  // namespace syncbn::train
