# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034,SC2154
# Shared by scripts/bench, bench_comm and bench_ddp: arguments, ranks on cores. To be sourced after setup.sh.

shapes=32x64x112x112,32x256x56x56,32x512x28x28,32x1024x14x14,32x2048x7x7,4x256x56x56,4x64x56x56,2x256x14x14
shapes+=,1024x1024,256x4096,128x256
folder=$SYNCBN_ROOT/build/bench

# wanted OPTION VALUE PATTERN WHAT: ends with code 2 unless VALUE fits the pattern.
wanted() { [[ $2 =~ ^($3)$ ]] || usage "$1 is \"$2\", wanted $4"; }

wanted_shapes() {
  wanted "$1" "$2" '[1-9][0-9]*x[1-9][0-9]*(x[1-9][0-9]*x[1-9][0-9]*)?(,[1-9][0-9]*x[1-9][0-9]*(x[1-9][0-9]*x[1-9][0-9]*)?)*' \
    'shapes like 32x64x7x7,128x256'
}

# Freed tensors stay in the process (PyTorch allocates its results anew in each call).
keep_freed_memory() { export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592; }

# Not nproc's own idea of the matter, which is $OMP_NUM_THREADS.
cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)

# on_ranks COUNT PROGRAM...: under $mpirun, one rank a core where there are enough of them. Two ranks that meet on one core wait
# for each other three times as long as a small message takes.
on_ranks() {
  local binding=none
  if [ "$1" -le "$cores" ]; then binding=core; fi
  OMPI_MCA_hwloc_base_binding_policy=$binding timeout 600 "$mpirun" -n "$@"
}
