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

# A build that stops at the first invalid access, undefined operation, leak, or race. The options come behind those of the
# build type, so it is always -O1: faults are found as they were written, in bearable time. To link with the library is
# enough for a program to get what the sanitizer needs.
if(SYNCBN_SANITIZE STREQUAL "address")
  set(_syncbn_sanitizers -fsanitize=address,undefined -fno-sanitize-recover=undefined)
elseif(SYNCBN_SANITIZE STREQUAL "thread")
  set(_syncbn_sanitizers -fsanitize=thread)
  # The run-time library is linked statically and has operators new and delete; those of tests that count allocations come
  # before them.
  target_link_options(syncbn_flags INTERFACE -Wl,-z,muldefs)
elseif(SYNCBN_SANITIZE)
  message(FATAL_ERROR "SYNCBN_SANITIZE is \"${SYNCBN_SANITIZE}\", wanted address, thread or nothing")
endif()
if(SYNCBN_SANITIZE)
  target_compile_options(syncbn_flags INTERFACE -O1 -g -fno-omit-frame-pointer ${_syncbn_sanitizers})
  target_link_options(syncbn_flags INTERFACE ${_syncbn_sanitizers})
endif()

# MPI's C interface only: its old C++ bindings must not come in through mpi.h.
add_library(syncbn_mpi INTERFACE)
target_link_libraries(syncbn_mpi INTERFACE MPI::MPI_C)
# An object of each program: out of an archive it would come behind the sanitizer's own.
if(SYNCBN_SANITIZE STREQUAL "address")
  add_library(syncbn_keep_loaded OBJECT "${PROJECT_SOURCE_DIR}/src/cli/keep_loaded.cpp")
  target_link_libraries(syncbn_keep_loaded PRIVATE syncbn_flags)
  target_sources(syncbn_mpi INTERFACE
    $<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:$<TARGET_OBJECTS:syncbn_keep_loaded>>)
  target_link_options(syncbn_mpi INTERFACE -Wl,--export-dynamic-symbol=dlclose)
endif()
target_compile_definitions(syncbn_mpi INTERFACE OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX)
