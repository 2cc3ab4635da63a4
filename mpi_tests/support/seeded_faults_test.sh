#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# seeded_faults_test.sh address|thread|memcheck PROGRAM [WRAPPER...]: this kind of check must find the faults of
# seeded_faults.cpp that are its business, on one rank of two, and end the job with an exit code that is not 0. WRAPPER stands
# before the program (valgrind and its options).
set -u
kind=$1 program=$2
shift 2
wrapper=("$@")
read -ra mpirun <<<"$SYNCBN_MPIRUN"
bad=0

# run FAULT: sets output and code.
run() {
  code=0
  output=$(timeout -k 5 100 "${mpirun[@]}" -n 2 ${wrapper[@]+"${wrapper[@]}"} "$program" "$1" 2>&1) || code=$?
}

# verdict FAULT WANTED CODE: CODE 0 is good.
verdict() {
  if [ "$3" -eq 0 ]; then
    printf 'ok: %s: %s\n' "$1" "$2"
  else
    bad=$((bad + 1))
    printf 'FAILED: %s: exit code %d, wanted %s; the output:\n%s\n' "$1" "$code" "$2" "$output"
  fi
}

clean() {
  run none
  [ "$code" -eq 0 ] && grep -qF 'none gives 0' <<<"$output"
  verdict none 'nothing found' $?
}

# finds FAULT TEXT: TEXT is what the checker calls it.
finds() {
  run "$1"
  [ "$code" -ne 0 ] && [ "$code" -ne 124 ] && grep -qF -- "$2" <<<"$output"
  verdict "$1" "\"$2\"" $?
}

clean
case $kind in
  address)
    finds heap_overflow 'AddressSanitizer: heap-buffer-overflow'
    finds kernel_overflow 'AddressSanitizer: heap-buffer-overflow'
    finds signed_overflow 'signed integer overflow'
    finds leak 'LeakSanitizer: detected memory leaks'
    ;;
  thread)
    finds data_race 'ThreadSanitizer: data race'
    finds parallel_race 'ThreadSanitizer: data race'
    ;;
  memcheck)
    finds heap_overflow 'Invalid read of size'
    finds kernel_overflow 'Invalid read of size'
    finds uninitialised_read 'depends on uninitialised value'
    ;;
  *)
    printf 'unknown kind of check: %s\n' "$kind"
    exit 2
    ;;
esac
[ "$bad" -eq 0 ]
