# SPDX-License-Identifier: MIT
# syncbn_test() and syncbn_tool_test(): tests under mpirun, rank counts stand in the registration.
include_guard()
include(ProcessorCount)

set(SYNCBN_TEST_TIMEOUT_SCALE 1 CACHE STRING "Multiplies every test's timeout (sanitizers, slow machines): a whole number")
ProcessorCount(_syncbn_cores)
set(SYNCBN_TEST_SUPPORT_DIR "${PROJECT_SOURCE_DIR}/mpi_tests/support")

# Build the programs of all tests with these labels. asan, tsan: what is run in the builds with sanitizers where time is short;
# tests without threads are not among tsan.
add_custom_target(syncbn_bits_tests)
add_custom_target(syncbn_asan_tests)
add_custom_target(syncbn_tsan_tests)

# The environment that Open MPI needs on a small machine or in a container; other MPI libraries ignore it.
# More ranks than cores, none bound to a core, waiting ranks yield; an abort must end the job, not print stacks for ever.
set(SYNCBN_TEST_ENVIRONMENT
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1
  OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_opal_signal=
  OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader OMP_WAIT_POLICY=passive GTEST_COLOR=no)

# What the sanitizers are told. A fault ends the program with an exit code that is not 0. Open MPI's own leaks and races are
# left out. Where plugins keep their thread-local data is not asked: LeakSanitizer would guess (DESIGN 8). libarcher tells
# ThreadSanitizer where OpenMP's threads wait for each other. SYNCBN_ISA: the kernels that this build has.
set(_syncbn_suppressions "${PROJECT_SOURCE_DIR}/scripts/sanitizers")
if(SYNCBN_SANITIZE STREQUAL "address")
  list(APPEND SYNCBN_TEST_ENVIRONMENT
    "ASAN_OPTIONS=detect_stack_use_after_return=1:intercept_tls_get_addr=0"
    "UBSAN_OPTIONS=print_stacktrace=1"
    "LSAN_OPTIONS=print_suppressions=0:suppressions='${_syncbn_suppressions}/leak.supp'")
elseif(SYNCBN_SANITIZE STREQUAL "thread")
  find_library(SYNCBN_ARCHER NAMES archer HINTS /usr/lib/llvm-14/lib DOC "OpenMP's events for ThreadSanitizer (libomp-14-dev)" REQUIRED)
  list(APPEND SYNCBN_TEST_ENVIRONMENT
    "TSAN_OPTIONS=ignore_noninstrumented_modules=1:suppressions='${_syncbn_suppressions}/race.supp'"
    "OMP_TOOL_LIBRARIES=${SYNCBN_ARCHER}" SYNCBN_ISA=scalar)
endif()

# mpirun and its options, without the number of ranks.
execute_process(COMMAND "${MPIEXEC_EXECUTABLE}" --version OUTPUT_VARIABLE _syncbn_launcher ERROR_VARIABLE _syncbn_launcher)
set(SYNCBN_MPIRUN "${MPIEXEC_EXECUTABLE}")
set(SYNCBN_IS_OPEN_MPI FALSE)
if(_syncbn_launcher MATCHES "Open MPI|OpenRTE")
  set(SYNCBN_IS_OPEN_MPI TRUE)
  list(APPEND SYNCBN_MPIRUN --oversubscribe)
endif()

# _syncbn_test_properties(TEST RANKS TIMEOUT LABELS...)
function(_syncbn_test_properties test ranks timeout)
  math(EXPR timeout "${timeout} * ${SYNCBN_TEST_TIMEOUT_SCALE}")
  # The program's own limit comes first: it can say where it was.
  math(EXPR limit "${timeout} - (${timeout} + 9) / 10")
  set(processors ${ranks})
  if(_syncbn_cores GREATER 0 AND processors GREATER _syncbn_cores)
    set(processors ${_syncbn_cores})
  elseif(processors LESS 1)
    set(processors 1)
  endif()
  set_tests_properties(${test} PROPERTIES
    PROCESSORS ${processors} TIMEOUT ${timeout} LABELS "${ARGN}" SKIP_RETURN_CODE 77
    ENVIRONMENT "${SYNCBN_TEST_ENVIRONMENT};SYNCBN_TEST_LIMIT_SECONDS=${limit}")
endfunction()

# _syncbn_require(CALL ARGUMENTS...): ends the configuration on a misspelt or missing argument.
macro(_syncbn_require call)
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "${call}(${arg_NAME}): unknown arguments: ${arg_UNPARSED_ARGUMENTS}")
  endif()
  foreach(_argument IN ITEMS ${ARGN})
    if(NOT DEFINED arg_${_argument})
      message(FATAL_ERROR "${call}(${arg_NAME}): ${_argument} is missing")
    endif()
  endforeach()
endmacro()

# syncbn_test_program(NAME name [NO_MPI] [SOURCES file...] [LIBRARIES target...])
# A GoogleTest executable name_test with the project's own main(). SOURCES: name_test.cpp by default; LIBRARIES:
# syncbn::syncbn by default. Sources find "support/...", and the headers of src/ as their targets give them.
function(syncbn_test_program)
  cmake_parse_arguments(PARSE_ARGV 0 arg "NO_MPI" "NAME" "SOURCES;LIBRARIES")
  _syncbn_require(syncbn_test_program NAME)
  if(NOT arg_SOURCES)
    set(arg_SOURCES ${arg_NAME}_test.cpp)
  endif()
  if(NOT arg_LIBRARIES)
    set(arg_LIBRARIES syncbn::syncbn)
  endif()
  add_executable(${arg_NAME}_test ${arg_SOURCES})
  if(arg_NO_MPI)
    set(main syncbn_test_main_without_mpi)
  else()
    set(main syncbn_test_main)
  endif()
  target_link_libraries(${arg_NAME}_test PRIVATE ${main} syncbn_flags ${arg_LIBRARIES})
endfunction()

# syncbn_test(NAME name RANKS n... | NO_MPI [SOURCES file...] [LIBRARIES target...] [LABELS label...] [TIMEOUT seconds])
# One program, one ctest test per rank count: name.4ranks, labelled mpi. RANKS 0 and NO_MPI: a test without MPI, name,
# labelled unit. SOURCES and LIBRARIES as in syncbn_test_program. A test passes only with the verdict of all its ranks.
#
#   syncbn_test(NAME batch_norm_forward RANKS 1 2 4 7)
#   syncbn_test(NAME moments NO_MPI LIBRARIES syncbn_statistics)
function(syncbn_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "NO_MPI" "NAME;TIMEOUT" "SOURCES;RANKS;LABELS;LIBRARIES")
  _syncbn_require(syncbn_test NAME)
  if(arg_RANKS STREQUAL "0")
    set(arg_NO_MPI TRUE)
  elseif(arg_NO_MPI AND arg_RANKS OR NOT arg_NO_MPI AND NOT arg_RANKS)
    message(FATAL_ERROR "syncbn_test(${arg_NAME}): wanted either RANKS or NO_MPI")
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  set(no_mpi)
  if(arg_NO_MPI)
    set(no_mpi NO_MPI)
  endif()
  syncbn_test_program(NAME ${arg_NAME} ${no_mpi} SOURCES ${arg_SOURCES} LIBRARIES ${arg_LIBRARIES})
  foreach(label IN ITEMS bits asan tsan)
    if(label IN_LIST arg_LABELS)
      add_dependencies(syncbn_${label}_tests ${arg_NAME}_test)
    endif()
  endforeach()

  set(check "${SYNCBN_TEST_SUPPORT_DIR}/check_verdict.sh")
  if(arg_NO_MPI)
    add_test(NAME ${arg_NAME} COMMAND bash "${check}" 1 $<TARGET_FILE:${arg_NAME}_test>)
    _syncbn_test_properties(${arg_NAME} 1 ${arg_TIMEOUT} unit ${arg_LABELS})
    return()
  endif()
  foreach(ranks IN LISTS arg_RANKS)
    set(test ${arg_NAME}.${ranks}ranks)
    add_test(NAME ${test}
      COMMAND bash "${check}" ${ranks} ${SYNCBN_MPIRUN} -n ${ranks} $<TARGET_FILE:${arg_NAME}_test>)
    _syncbn_test_properties(${test} ${ranks} ${arg_TIMEOUT} mpi ${arg_LABELS})
  endforeach()
endfunction()

# syncbn_script_test(NAME name SCRIPT file [ARGUMENTS arg...] [RANKS n...] [PROCESSORS n] [LABELS label...]
#                    [TIMEOUT seconds] [ENVIRONMENT NAME=value...])
# A test that is a script: .py (Python 3) or .sh (bash). Exit code 0 passes, 77 skips. It runs in a folder of its own in the
# build tree and finds in its environment
#   SYNCBN_MPIRUN      mpirun with its options, to be split at spaces; add `-n RANKS program ...`
#   SYNCBN_RANKS       the number of ranks of this test, if RANKS is given: then one test per number, name.3ranks
#   SYNCBN_SOURCE_DIR  the root of the source tree
function(syncbn_script_test)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "NAME;SCRIPT;TIMEOUT;PROCESSORS" "ARGUMENTS;RANKS;LABELS;ENVIRONMENT")
  _syncbn_require(syncbn_script_test NAME SCRIPT)
  if(arg_SCRIPT MATCHES "\\.py$")
    find_package(Python3 REQUIRED COMPONENTS Interpreter)
    set(interpreter "${Python3_EXECUTABLE}" -B)
  elseif(arg_SCRIPT MATCHES "\\.sh$")
    set(interpreter bash)
  else()
    message(FATAL_ERROR "syncbn_script_test(${arg_NAME}): SCRIPT is ${arg_SCRIPT}, wanted a .py or .sh file")
  endif()
  get_filename_component(script "${arg_SCRIPT}" ABSOLUTE)
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  if(NOT arg_PROCESSORS)
    set(arg_PROCESSORS 1)
  endif()
  string(REPLACE ";" " " mpirun "${SYNCBN_MPIRUN}")

  set(counts ${arg_RANKS})
  if(NOT counts)
    set(counts 0)
  endif()
  foreach(ranks IN LISTS counts)
    set(test ${arg_NAME})
    set(processors ${arg_PROCESSORS})
    set(environment "SYNCBN_MPIRUN=${mpirun}" "SYNCBN_SOURCE_DIR=${PROJECT_SOURCE_DIR}" ${arg_ENVIRONMENT})
    if(ranks)
      set(test ${arg_NAME}.${ranks}ranks)
      set(processors ${ranks})
      list(APPEND environment SYNCBN_RANKS=${ranks})
    endif()
    set(folder "${CMAKE_CURRENT_BINARY_DIR}/${test}")
    file(MAKE_DIRECTORY "${folder}")
    add_test(NAME ${test} COMMAND ${interpreter} "${script}" ${arg_ARGUMENTS} WORKING_DIRECTORY "${folder}")
    _syncbn_test_properties(${test} ${processors} ${arg_TIMEOUT} ${arg_LABELS})
    set_property(TEST ${test} APPEND PROPERTY ENVIRONMENT "${environment}")
  endforeach()
endfunction()

# syncbn_tool_test(...): as syncbn_script_test, labelled tool, with SYNCBN_TOOL (the path of the syncbn program) in the
# environment. Nothing is registered if the program is not built.
#
#   syncbn_tool_test(NAME normalize SCRIPT normalize_test.py RANKS 1 3)
function(syncbn_tool_test)
  if(NOT SYNCBN_BUILD_TOOL)
    return()
  endif()
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "" "LABELS;ENVIRONMENT")
  syncbn_script_test(${arg_UNPARSED_ARGUMENTS} LABELS tool ${arg_LABELS}
    ENVIRONMENT "SYNCBN_TOOL=$<TARGET_FILE:syncbn_tool>" ${arg_ENVIRONMENT})
endfunction()
