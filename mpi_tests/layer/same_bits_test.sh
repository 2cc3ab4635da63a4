# SPDX-License-Identifier: MIT
# same_bits_test.sh PROGRAM: the hash of all results is one for every instruction set that this machine has and for every
# number of ranks.
set -u
program=$1
wanted=
sets=0
for isa in scalar avx2 avx512 native; do
  for ranks in 1 3; do
    # shellcheck disable=SC2086  # mpirun with its options
    if ! output=$(SYNCBN_ISA=$isa $SYNCBN_MPIRUN -n "$ranks" "$program" 2>&1); then
      if [ "$isa" != scalar ] && grep -q "environment variable SYNCBN_ISA is '$isa'" <<< "$output"; then
        echo "$isa: not on this machine"
        break
      fi
      echo "$output"
      exit 1
    fi
    bits=$(grep '^\[bits\]' <<< "$output")
    echo "$isa on $ranks ranks: $bits"
    if [ -z "$bits" ]; then echo "no hash in the output"; exit 1; fi
    if [ "${wanted:=$bits}" != "$bits" ]; then echo "differs from $wanted"; exit 1; fi
    sets=$((sets + 1))
  done
done
if [ "$sets" -lt 4 ]; then echo "skipped: only one instruction set to compare"; exit 77; fi
