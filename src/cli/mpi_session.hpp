// SPDX-License-Identifier: MIT
// The program's MPI_Init and MPI_Finalize.
#pragma once

namespace syncbn::cli {

/// Which rank of how many this process is according to the launcher's environment, before MPI_Init: {0, 1} without
/// mpirun.
struct LaunchedAs {
  int rank = 0;
  int size = 1;
};
LaunchedAs launched_as() noexcept;

/// MPI for the life of the object. Errors on MPI_COMM_WORLD are returned, not fatal: the program checks each call.
class MpiSession {
 public:
  /// Only the main thread calls MPI. Throws LocalFailure (environment) if the MPI library cannot give that.
  MpiSession(int* argc, char*** argv);
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  static const int kThreadLevel;  ///< What is asked for: MPI_THREAD_FUNNELED.
};

/// "MPI_THREAD_FUNNELED" and so on.
const char* thread_level_name(int level) noexcept;

}  // namespace syncbn::cli
