# SPDX-License-Identifier: MIT
# The one place for compiler flags. Every target of the project links syncbn_flags (PRIVATE).
add_library(syncbn_flags INTERFACE)
target_compile_features(syncbn_flags INTERFACE cxx_std_20)
target_compile_options(syncbn_flags INTERFACE
  # The same bits from every compiler and instruction set: a*b+c is rounded twice unless the source says fma.
  # Never -ffast-math, never -march=native.
  -ffp-contract=off
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
  $<$<BOOL:${SYNCBN_WERROR}>:-Werror>)

# MPI's C interface only: its old C++ bindings must not come in through mpi.h.
add_library(syncbn_mpi INTERFACE)
target_link_libraries(syncbn_mpi INTERFACE MPI::MPI_C)
target_compile_definitions(syncbn_mpi INTERFACE OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX)
