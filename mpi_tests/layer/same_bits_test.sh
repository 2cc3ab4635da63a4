# SPDX-License-Identifier: MIT
# same_bits_test.sh PROGRAM: the hash of all results is one for every instruction set that this machine has and for every
# number of ranks.
set -u
program=$1
wanted=
for isa in scalar avx2 avx512 native; do
  for ranks in 1 3; do
    # shellcheck disable=SC2086  # mpirun with its options
    output=$(SYNCBN_ISA=$isa $SYNCBN_MPIRUN -n $ranks "$program" 2>&1) || { echo "$output"; exit 1; }
    bits=$(grep '^\[bits\]' <<< "$output")
    used=$(grep '^\[isa\]' <<< "$output")
    echo "$isa on $ranks ranks: $bits $used"
    [ -n "$bits" ] || { echo "no hash in the output of $program"; exit 1; }
    [ "${wanted:=$bits}" = "$bits" ] || { echo "differs: $wanted was first"; exit 1; }
  done
done
