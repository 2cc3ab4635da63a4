#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check_verdict.sh RANKS COMMAND...: runs a test program and believes it only if it exits with 0 *and* rank 0 has printed the
# verdict of all RANKS ranks. Exit codes: 0 passed, 77 every test was skipped, else failed.
set -u
ranks=$1
shift
exec 3>&1
# The output goes through to the reader as it comes, so that a test that is killed has shown how far it was.
verdicts=$(
  "$@" 2>&1 | tee /dev/fd/3 | grep -aE '^\[verdict\] '
  exit "${PIPESTATUS[0]}"
)
code=$?
if [ "$code" -ne 0 ]; then exit "$code"; fi
case $verdicts in
  "[verdict] passed on $ranks ranks "*) exit 0 ;;
  "[verdict] skipped on $ranks ranks "*) exit 77 ;;
esac
printf 'the program exited with code 0, but its verdict is "%s", wanted "[verdict] passed on %s ranks": a rank left early, or the launcher does not belong to the MPI library\n' \
  "$verdicts" "$ranks"
exit 1
