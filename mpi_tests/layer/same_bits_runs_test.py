# SPDX-License-Identifier: MIT
"""same_bits_runs_test.py PROGRAM: the hash of all result bytes is one for every way to run same_bits_hash: number of
ranks, instruction set, all-reduce algorithm and threads. Writes it to same_bits.txt, for comparison between builds."""
import os
import re
import subprocess
import sys

PROGRAM = sys.argv[1]
MPIRUN = os.environ["SYNCBN_MPIRUN"].split()
IS_OPEN_MPI = "--oversubscribe" in MPIRUN
# Fewer where each run takes long: without optimization, or where MPI waits by spinning.
RANKS = [int(text) for text in os.environ.get("SYNCBN_BITS_RANKS", "1 2 3 4 5 6 7 8").split()]
SECONDS = 120  # a run takes one; a hang is a failure


class NotHere(Exception):
    """This machine or build cannot run that way."""


def differs_on(ranks):
    """Does Reduction::fast show other bits on several ranks than on one, or on one of them than on another?"""
    command = [*MPIRUN, "-n", str(ranks), PROGRAM, "--reduction", "fast"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    if "[bits] the ranks differ from each other" in run.stdout:
        return True
    return bits(ranks, ["--reduction", "fast"]) != bits(1, ["--reduction", "fast"])


def bits(ranks, arguments=(), **environment):
    command = [*MPIRUN, "-n", str(ranks), PROGRAM, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env={**os.environ, **environment})
    if f"SYNCBN_ISA is '{environment.get('SYNCBN_ISA')}'" in run.stderr:
        raise NotHere
    found = re.findall(r"^\[bits\] ([0-9a-f]{16} of \d+ cases)$", run.stdout, re.MULTILINE)
    if run.returncode != 0 or len(found) != 1:
        sys.exit(f"{environment} {command} failed with exit code {run.returncode}\n{run.stdout}{run.stderr}")
    return found[0]


def tuned(algorithm):
    """Blocking all-reduce of Open MPI. 1 linear, 2 reduce and broadcast, 3 recursive doubling, 4 ring, 5 segmented ring,
    6 Rabenseifner."""
    return {"OMPI_MCA_coll_tuned_use_dynamic_rules": "1", "OMPI_MCA_coll_tuned_allreduce_algorithm": str(algorithm)}


def nonblocking(algorithm):
    """The same of MPI_Iallreduce: 1 ring, 2 binomial, 3 Rabenseifner, 4 recursive doubling."""
    return {"OMPI_MCA_coll_libnbc_iallreduce_algorithm": str(algorithm)}


def mpich(name, value):
    return {f"MPIR_CVAR_{name}_INTRA_ALGORITHM": value}


def ways():
    """(what, ranks, arguments, environment)"""
    for ranks in RANKS:
        yield f"{ranks} ranks", ranks, [], {}
    few = [ranks for ranks in RANKS if ranks in (1, 3)]
    for isa in ("scalar", "avx2", "avx512", "native"):
        for ranks in few:
            yield f"{isa}, {ranks} ranks", ranks, [], {"SYNCBN_ISA": isa}
    for threads in (2, 4):
        for ranks in few:
            yield f"{threads} threads, {ranks} ranks", ranks, ["--threads", str(threads)], {}
    # A power of two, and not.
    for ranks in [ranks for ranks in RANKS if ranks in (4, 7)]:
        if not IS_OPEN_MPI:
            for algorithm in ("sched_naive", "sched_recursive_doubling", "sched_reduce_scatter_allgather"):
                yield f"MPI_Iallreduce {algorithm}, {ranks} ranks", ranks, [], mpich("IALLREDUCE", algorithm)
            continue
        for algorithm in range(1, 5):
            yield f"MPI_Iallreduce algorithm {algorithm}, {ranks} ranks", ranks, [], nonblocking(algorithm)
        for algorithm in range(1, 7):
            yield f"MPI_Allreduce algorithm {algorithm}, {ranks} ranks", ranks, [], tuned(algorithm)


def main():
    wanted = bits(1)
    failures = 0
    runs = 0
    missing = set()  # instruction sets that one rank did not have: of several, mpiexec may swallow what they say
    for what, ranks, arguments, environment in ways():
        isa = environment.get("SYNCBN_ISA")
        try:
            if isa in missing:
                raise NotHere
            got = bits(ranks, arguments, **environment)
        except NotHere:
            missing.add(isa)
            print(f"{what}: not on this machine")
            continue
        runs += 1
        failures += got != wanted
        print(f"{what}: {got}{'' if got == wanted else f', WANTED {wanted}'}", flush=True)
    # The hash must be able to see a difference.
    most = max(RANKS)
    if most > 1 and not differs_on(most):
        print("Reduction::fast has the same hash on 1 and several ranks: this test cannot fail")
        failures += 1
    with open("same_bits.txt", "w", encoding="ascii") as file:
        file.write(f"{wanted}\n")
    print(f"{runs} runs, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
