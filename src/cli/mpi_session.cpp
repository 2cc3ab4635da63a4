// SPDX-License-Identifier: MIT
#include "mpi_session.hpp"

#include <cstdlib>
#include <string>

#include <mpi.h>

#include "failure.hpp"

namespace syncbn::cli {
namespace {

struct RankVariables {
  const char* rank;
  const char* size;
};

// Open MPI; MPICH and its descendants; Slurm's srun for either.
constexpr RankVariables kRankVariables[] = {
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"}, {"PMI_RANK", "PMI_SIZE"}, {"SLURM_PROCID", "SLURM_NTASKS"}};

}  // namespace

const int MpiSession::kThreadLevel = MPI_THREAD_FUNNELED;

LaunchedAs launched_as() noexcept {
  for (const RankVariables& names : kRankVariables) {
    const char* rank = std::getenv(names.rank);
    const char* size = std::getenv(names.size);
    if (rank != nullptr && size != nullptr) return {std::atoi(rank), std::atoi(size)};
  }
  return {};
}

MpiSession::MpiSession(int* argc, char*** argv) {
  int provided = MPI_THREAD_SINGLE;
  if (MPI_Init_thread(argc, argv, kThreadLevel, &provided) != MPI_SUCCESS) {
    throw LocalFailure(kEnvironment, "MPI_Init_thread failed");
  }
  if (provided < kThreadLevel) {
    MPI_Finalize();
    throw LocalFailure(kEnvironment, std::string("the MPI library gives ") + thread_level_name(provided) + ", wanted " +
                                         thread_level_name(kThreadLevel));
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
}

MpiSession::~MpiSession() { MPI_Finalize(); }

const char* thread_level_name(int level) noexcept {
  if (level == MPI_THREAD_SINGLE) return "MPI_THREAD_SINGLE";
  if (level == MPI_THREAD_FUNNELED) return "MPI_THREAD_FUNNELED";
  if (level == MPI_THREAD_SERIALIZED) return "MPI_THREAD_SERIALIZED";
  if (level == MPI_THREAD_MULTIPLE) return "MPI_THREAD_MULTIPLE";
  return "an unknown thread level";
}

}  // namespace syncbn::cli
