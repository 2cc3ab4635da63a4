# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034
# Shared by scripts/run and scripts/test: packages, configure and build, the environment for mpirun. To be sourced.
# Never changes the working directory: relative paths in arguments are the caller's.

SYNCBN_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)

# What the library and the program need, and what the tests need besides (Debian names).
SYNCBN_BUILD_PACKAGES=(g++ make cmake ninja-build pkg-config libopenmpi-dev openmpi-bin
  libeigen3-dev libhwy-dev libcli11-dev nlohmann-json3-dev zlib1g-dev)
SYNCBN_TEST_PACKAGES=(libgtest-dev python3 python3-numpy
  iproute2 util-linux)  # several hosts on one machine, scripts/hosts
# Another MPI library and another compiler, for the tests that compare builds.
SYNCBN_OTHER_BUILD_PACKAGES=(mpich libmpich-dev clang-14 libomp-14-dev)
# For the builds with sanitizers and the tests under valgrind: ThreadSanitizer's run-time library, OpenMP's events for it.
SYNCBN_CHECKER_PACKAGES=(clang-14 libclang-rt-14-dev libomp-14-dev valgrind)
# For the fuzz targets: libFuzzer is among clang's run-time libraries.
SYNCBN_FUZZ_PACKAGES=(clang-14 libclang-rt-14-dev)

# PyTorch to build with, to test with and to compare with, in a virtual environment: see install_python.
SYNCBN_PYTHON_PACKAGES=(python3 python3-venv)
SYNCBN_PYTHON_MODULES=(torch==2.13.0 numpy mpi4py safetensors setuptools)
# Debian's own PyTorch, an older one, for one test.
SYNCBN_DEBIAN_TORCH_PACKAGES=(python3-torch libtorch-dev)
SYNCBN_PYTHON=$SYNCBN_ROOT/build/python/bin/python3

# One line a step, on stderr: stdout belongs to the program.
step() { printf '==> %s\n' "$*" >&2; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# missing_packages PACKAGE...: those that are not installed, one a line.
missing_packages() {
  local installed
  # dpkg-query exits with 1 when it does not know a package; that package is simply absent from the list.
  # shellcheck disable=SC2016  # ${...} is dpkg-query's own
  installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
  local package
  for package in "$@"; do
    grep -qxF -- "$package installed" <<<"$installed" || printf '%s\n' "$package"
  done
}

# as_root COMMAND...: runs it as root, or returns 126 if this user cannot become root.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    sudo "$@"
  else
    return 126
  fi
}

# require_packages PACKAGE...: installs what is missing. Without missing packages: no apt call, no network.
require_packages() {
  if ! command -v dpkg-query >/dev/null; then
    step "not a Debian system: packages are not checked (this needs the like of: $*)"
    return
  fi
  local missing
  mapfile -t missing < <(missing_packages "$@")
  [ "${#missing[@]}" -gt 0 ] || return 0

  as_root true || fail "these Debian packages are missing, and this user is neither root nor may use sudo: ${missing[*]}
Have them installed: apt-get install ${missing[*]}"
  step "installing Debian packages (may take some minutes): ${missing[*]}"
  quietly apt_get update || fail "apt-get update failed (its messages are above); still missing: ${missing[*]}"
  quietly apt_get -y --no-install-recommends install "${missing[@]}" ||
    fail "apt-get could not install these packages (its messages are above; is there a network?): ${missing[*]}"
}

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
    -o Dpkg::Use-Pty=0 "$@"
}

# quietly COMMAND...: shows its output only if it fails.
quietly() {
  local log code=0
  log=$(mktemp)
  "$@" </dev/null >"$log" 2>&1 || code=$?
  if [ "$code" -ne 0 ]; then cat "$log" >&2; fi
  rm -f -- "$log"
  return "$code"
}

# install_python: $SYNCBN_PYTHON with $SYNCBN_PYTHON_MODULES. Returns non-zero if they cannot be had.
install_python() {
  if [ -x "$SYNCBN_PYTHON" ] && "$SYNCBN_PYTHON" -c 'import torch, numpy, mpi4py, safetensors, setuptools' 2>/dev/null; then return; fi
  step "installing ${SYNCBN_PYTHON_MODULES[*]} into build/python (may take some minutes)"
  quietly python3 -m venv --clear "$SYNCBN_ROOT/build/python" || return 1
  quietly timeout 1800 "$SYNCBN_PYTHON" -m pip install --disable-pip-version-check --progress-bar off "${SYNCBN_PYTHON_MODULES[@]}"
}

# One job a core, fewer when memory is short: 1 GB a compiler.
build_jobs() {
  local cores gigabytes
  cores=$(nproc 2>/dev/null || echo 1)
  gigabytes=$(awk '/^MemAvailable:/ { print int($2 / 1048576) }' /proc/meminfo 2>/dev/null || true)
  if [ -n "$gigabytes" ] && [ "$gigabytes" -lt "$cores" ]; then cores=$gigabytes; fi
  if [ "$cores" -lt 1 ]; then cores=1; fi
  echo "$cores"
}

# Debian lets two MPIs live side by side and points mpicc and mpirun at either: ask for Open MPI's own names when they
# exist, so that compiler and launcher always belong together.
openmpi_cmake_args() {
  local compiler launcher
  if compiler=$(command -v mpicc.openmpi) && launcher=$(command -v mpirun.openmpi); then
    printf '%s\n' "-DMPI_C_COMPILER=$compiler" "-DMPIEXEC_EXECUTABLE=$launcher"
  fi
}

# build FOLDER [--target TARGET] CMAKE_ARGS...: configures the tree and builds TARGET (all) into build/FOLDER. Returns
# non-zero, with the reason printed, when it fails.
build() {
  local folder=$SYNCBN_ROOT/build/$1 target=all
  shift
  if [ "${1-}" = --target ]; then
    target=$2
    shift 2
  fi
  # CMake refuses a cache that was made for another place (a moved or copied tree): start afresh.
  if [ -f "$folder/CMakeCache.txt" ] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$SYNCBN_ROOT" "$folder/CMakeCache.txt"; then
    rm -rf -- "$folder"
  fi
  mkdir -p -- "$folder"

  local args=(-DCMAKE_BUILD_TYPE=Release "$@")
  if command -v ccache >/dev/null; then args+=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
  step "configuring build/${folder##*/}"
  quietly cmake -S "$SYNCBN_ROOT" -B "$folder" -G Ninja "${args[@]}" || return 1

  step "building build/${folder##*/}"
  local ninja_args=()
  if [ ! -t 2 ]; then ninja_args=(-- --quiet); fi
  cmake --build "$folder" --target "$target" --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-$(build_jobs)}" ${ninja_args[@]+"${ninja_args[@]}"} >&2
}

# cached_value FOLDER NAME: a variable of build/FOLDER's CMake cache.
cached_value() { sed -n "s/^$2:[A-Z]*=//p" "$SYNCBN_ROOT/build/$1/CMakeCache.txt"; }

# What Open MPI needs on a laptop or in a container: root, more ranks than cores, no binding to one core, no spinning while
# waiting, shared memory only. Whatever the user has exported stays.
export_mpi_environment() {
  local setting name
  for setting in \
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
    OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_mpi_yield_when_idle=1 \
    OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_opal_signal= \
    OMPI_MCA_pml=ob1 OMPI_MCA_btl=self,vader OMP_WAIT_POLICY=passive; do
    name=${setting%%=*}
    [ -n "${!name+set}" ] || export "$name=${setting#*=}"
  done
}
