#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# verdict_test.sh CHECK PROGRAM PROGRAM_WITHOUT_MPI: every fault of the two faulty programs must come out red, with the line
# that tells where; what has no fault must come out green.
set -u
check=$1 program=$2 program_without_mpi=$3
read -ra mpirun <<<"$SYNCBN_MPIRUN"
bad=0

# expect CODE TEXT COMMAND...: CODE is green (0), skip (77) or red (anything else); TEXT is an extended regular expression
# that some line of the output must match.
expect() {
  local wanted=$1 text=$2 code=0 got=red output
  shift 2
  # Every fault here is over in seconds; 30 is for a busy machine.
  output=$(timeout -k 5 30 "$@" 2>&1) || code=$?
  case $code in
    0) got=green ;;
    77) got=skip ;;
    124 | 137) got="a hang, stopped after 30 s" ;;
  esac
  if [ "$got" = "$wanted" ] && grep -aqE -- "$text" <<<"$output"; then
    printf 'ok: %s %s\n' "$wanted" "$what"
    return
  fi
  bad=$((bad + 1))
  printf 'FAILED: %s: got %s (exit code %d), wanted %s with a line like "%s"; its output:\n%s\n' \
    "$what" "$got" "$code" "$wanted" "$text" "$output"
}

# on_ranks RANKS CODE TEXT TEST: the selected tests of the MPI program on N ranks.
on_ranks() {
  what="$4 on $1 ranks"
  expect "$2" "$3" bash "$check" "$1" "${mpirun[@]}" -n "$1" "$program" "--gtest_filter=$4"
}

without_mpi() {
  what="$3 without MPI"
  expect "$1" "$2" bash "$check" 1 "$program_without_mpi" "--gtest_filter=$3"
}

export SYNCBN_TEST_LIMIT_SECONDS=20
on_ranks 1 green '^\[verdict\] passed on 1 ranks' Faulty.HasNoFault
on_ranks 3 green '^\[verdict\] passed on 3 ranks \(2 tests, 0 skipped\)' 'Faulty.HasNoFault*'
on_ranks 2 green '1 skipped' Faulty.HasNoFault:Faulty.IsSkipped
on_ranks 2 skip '^\[verdict\] skipped on 2 ranks' Faulty.IsSkipped
on_ranks 2 red 'skipped on rank 1, but not on rank 0' Faulty.IsSkippedOnOneRank
on_ranks 2 red '^\[rank 1\] .*faulty_program.cpp:[0-9]+: Failure' Faulty.FailsOnOneRank
on_ranks 3 red '^failed on rank 1$' Faulty.FailsOnOneRank
on_ranks 3 red '^\[verdict\] FAILED on 3 ranks: 1 of 2 tests' Faulty.FailsOnOneRank:Faulty.HasNoFault
on_ranks 2 red '^\[rank 1\] .*Failure' Faulty.ThrowsOnOneRank
on_ranks 2 red '^\[verdict\] FAILED on 2 ranks' FaultySuite.FailsInSetUpOnOneRank
on_ranks 2 red '\[rank 1\] left the program before the end' Faulty.ExitsWithZero
on_ranks 2 red 'no test was selected' Faulty.NoSuchTest
on_ranks 2 red 'Faulty.Aborts' Faulty.Aborts
on_ranks 1 red 'wanted "\[verdict\] passed on 1 ranks"|without calling "finalize"|exited' Faulty.EveryRankExitsWithZeroAtOnce

what="other tests on rank 1 than on rank 0"
expect red 'the ranks do not run the same tests' bash "$check" 2 "${mpirun[@]}" \
  -n 1 "$program" --gtest_filter=Faulty.IsSkipped : -n 1 "$program" --gtest_filter=Faulty.HasNoFaultEither
what="more tests on rank 1 than on rank 0"
expect red 'rank 0: at the end of the program' bash "$check" 2 "${mpirun[@]}" \
  -n 1 "$program" --gtest_filter=Faulty.HasNoFault : -n 1 "$program" '--gtest_filter=Faulty.HasNoFault*'
what="fewer ranks than wanted"
expect red 'wanted "\[verdict\] passed on 2 ranks"' bash "$check" 2 "${mpirun[@]}" -n 1 "$program" --gtest_filter=Faulty.HasNoFault

without_mpi green '^\[verdict\] passed on 1 ranks' Faulty.HasNoFault
without_mpi skip '^\[verdict\] skipped on 1 ranks' Faulty.IsSkipped
without_mpi red '^\[verdict\] FAILED on 1 ranks' Faulty.Fails
without_mpi red '^\[verdict\] FAILED on 1 ranks: no test' Faulty.NoSuchTest
without_mpi red 'Faulty.ExitsWithZero' Faulty.ExitsWithZero
without_mpi red 'its verdict is "", wanted' Faulty.ExitsWithZeroAtOnce

export SYNCBN_TEST_LIMIT_SECONDS=2
on_ranks 2 red '^\[rank 1\] is still in Faulty.Hangs after 2 seconds' Faulty.Hangs
on_ranks 2 red '^\[rank 0\] has finished Faulty.Hangs and still waits' Faulty.Hangs
on_ranks 2 red 'still waits for the other ranks|exited|EXIT' Faulty.ExitsWithZeroAtOnce
without_mpi red 'is still in Faulty.Hangs after 2 seconds' Faulty.Hangs

export SYNCBN_TEST_LIMIT_SECONDS=soon
on_ranks 2 red 'SYNCBN_TEST_LIMIT_SECONDS is "soon"' Faulty.HasNoFault

[ "$bad" -eq 0 ]
