// SPDX-License-Identifier: MIT
// Counts the MPI calls of a test program through the MPI profiling interface. Link syncbn_collective_counter.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace syncbn::testing {

/// Calls made by this rank since reset(), by all threads. Thread-safe. A persistent operation counts when it is
/// started.
///
///   CollectiveCounter::reset();
///   layer.forward_train(x, y);
///   EXPECT_EQ(CollectiveCounter::total_collectives(), 1) << CollectiveCounter::summary();
class CollectiveCounter {
 public:
  static void reset();

  /// Calls of one function, e.g. count("MPI_Allreduce"). Throws std::invalid_argument if it is not one that is counted,
  /// so that a misspelt name does not read as "never called".
  static std::int64_t count(std::string_view function);

  /// Calls that move data or wait, blocking or not: Allreduce, Allgather, Bcast, Reduce, Barrier, ..., on any
  /// communicator.
  static std::int64_t total_collectives();
  /// Calls that make communicators: Comm_dup, Comm_split, ...
  static std::int64_t total_communicator_calls();
  /// Sends (a receive belongs to a send), starts of persistent operations, one-sided transfers.
  static std::int64_t total_point_to_point();

  /// "MPI_Allreduce 2, MPI_Isend 1", or "no MPI calls": for failure messages.
  static std::string summary();
};

}  // namespace syncbn::testing
