# SPDX-License-Identifier: MIT
# cmake --install: library, headers, the CMake package syncbn, and syncbn.pc.
include(CMakePackageConfigHelpers)

set(_package "${CMAKE_INSTALL_LIBDIR}/cmake/syncbn")
install(TARGETS syncbn_static syncbn_shared EXPORT syncbn-targets
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/syncbn" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT syncbn-targets NAMESPACE syncbn:: DESTINATION "${_package}")

# Which MPI the library was built with: two do not mix, and a program would find out by crashing.
include(syncbn_mpi_library)
syncbn_mpi_library(SYNCBN_MPI_LIBRARY ${MPI_C_INCLUDE_DIRS})
configure_package_config_file("${CMAKE_CURRENT_LIST_DIR}/syncbn-config.cmake.in"
  "${PROJECT_BINARY_DIR}/package/syncbn-config.cmake" INSTALL_DESTINATION "${_package}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/package/syncbn-config-version.cmake" COMPATIBILITY SameMinorVersion)
install(FILES
  "${PROJECT_BINARY_DIR}/package/syncbn-config.cmake" "${PROJECT_BINARY_DIR}/package/syncbn-config-version.cmake"
  "${CMAKE_CURRENT_LIST_DIR}/syncbn_mpi_library.cmake" DESTINATION "${_package}")

# Relative to the file itself, so that the tree may be moved; CMAKE_INSTALL_LIBDIR may have several levels.
file(RELATIVE_PATH _pc_prefix "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
string(REGEX REPLACE "/$" "" SYNCBN_PC_PREFIX "\${pcfiledir}/${_pc_prefix}")
set(SYNCBN_PC_PRIVATE -lstdc++ -lm)
if(OpenMP_CXX_FOUND)
  list(APPEND SYNCBN_PC_PRIVATE ${OpenMP_CXX_FLAGS})
endif()
foreach(library IN LISTS MPI_C_LIBRARIES)
  list(APPEND SYNCBN_PC_PRIVATE "${library}")
endforeach()
list(JOIN SYNCBN_PC_PRIVATE " " SYNCBN_PC_PRIVATE)
configure_file("${CMAKE_CURRENT_LIST_DIR}/syncbn.pc.in" "${PROJECT_BINARY_DIR}/package/syncbn.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/package/syncbn.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
