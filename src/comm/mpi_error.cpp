// SPDX-License-Identifier: MIT
#include "comm/mpi_error.hpp"

#include <string>

#include <mpi.h>

#include "syncbn/error.hpp"

namespace syncbn::comm {

void check(int code, const char* function) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw MpiError(std::string("[") + function + "] " + std::string(text, static_cast<std::size_t>(length)));
}

void check_mpi_is_running() {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (!initialized) {
    throw MpiError("[Communicator] MPI is not initialized: call MPI_Init before making a Communicator");
  }
  if (finalized) throw MpiError("[Communicator] MPI is finalized: no messages are possible any more");
}

bool mpi_is_finalized() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  return finalized != 0;
}

}  // namespace syncbn::comm
