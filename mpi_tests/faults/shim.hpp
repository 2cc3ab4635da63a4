// SPDX-License-Identifier: MIT
// MPI that misbehaves when it is told to. Link the object library syncbn_fault_shim: its MPI_Iallreduce, MPI_Iallgather,
// MPI_Ibcast, MPI_Comm_idup, MPI_Test and MPI_Improbe come before the MPI library's.
#pragma once

#include <cstdint>
#include <string>

namespace syncbn::testing {

enum class Misdeed {
  none,
  delay,  ///< The call is made later.
  error,  ///< The call is not made and returns MPI_ERR_OTHER.
  stop,   ///< The process stops itself (SIGSTOP).
  never,  ///< The operation is not begun, but its request looks as if it were.
};

enum class Where { start, test, probe };

/// What this process does wrong, once: at the start of collective operation number `call` (from 1), or at the first
/// MPI_Test or MPI_Improbe after that.
struct Plan {
  Misdeed misdeed = Misdeed::none;
  Where where = Where::start;
  int rank = 0;  ///< Whose plan it is.
  int call = 0;
  double seconds = 0;  ///< Of a delay.
};

/// A plan out of a number: any rank, any kind, any of the first `calls` collective operations. A third of the delays each
/// is short, about the deadline, and longer than it.
Plan plan_from(std::uint64_t seed, int ranks, int calls, double deadline_seconds);

/// From now on, in this process; operations count from here. `announce` is called with words for it, right before.
void misbehave(const Plan& plan, void (*announce)(const std::string& words));

/// Collective operations begun since then.
int collective_calls();

}  // namespace syncbn::testing
