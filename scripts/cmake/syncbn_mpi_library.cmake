# SPDX-License-Identifier: MIT
# syncbn_mpi_library(VARIABLE INCLUDE_DIR...): "Open MPI 4" or "MPICH" (and what descends from it), from the
# mpi.h that is found there; "unknown" if it says neither.
function(syncbn_mpi_library variable)
  set(found unknown)
  foreach(folder IN LISTS ARGN)
    if(found STREQUAL "unknown" AND EXISTS "${folder}/mpi.h")
      file(STRINGS "${folder}/mpi.h" lines REGEX "^[ \t]*#[ \t]*define[ \t]+(OMPI_MAJOR_VERSION|MPICH_VERSION|I_MPI_VERSION)[ \t]")
      if("${lines}" MATCHES "OMPI_MAJOR_VERSION[ \t]+([0-9]+)")
        set(found "Open MPI ${CMAKE_MATCH_1}")
      elseif("${lines}" MATCHES "(MPICH_VERSION|I_MPI_VERSION)[ \t]+\"([0-9]+)")
        # Those that descend from MPICH share its binary interface.
        set(found "MPICH")
      endif()
    endif()
  endforeach()
  set(${variable} "${found}" PARENT_SCOPE)
endfunction()
