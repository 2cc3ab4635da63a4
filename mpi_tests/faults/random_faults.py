# SPDX-License-Identifier: MIT
"""random_faults.py [--runs N] [--seed S] [--jobs J] [--flavour NAME=MPIRUN=PROGRAM]... [PROGRAM]: training in which the
MPI library misbehaves once on one rank: a call comes late, fails, stops the process, or never begins. Run number i has
the seed S + i, and from that which rank, which call and what; flavours (MPI libraries) and 2 or 4 ranks take turns.

A run is right if every rank that lives ends by itself, all with the same error, or all without one if nothing was
missing. Prints the command that repeats each that is not."""
import argparse
import concurrent.futures
import os
import pathlib
import re
import shlex
import sys

import job as jobs

DEADLINE = 0.5  # seconds
LIMIT = 30.0  # a run takes 1 to 3
TO_ERROR = DEADLINE + 1.0 + 1.0  # the last for a machine that has other things to do


def arguments():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--flavour", action="append", default=[])
    parser.add_argument("program", nargs="?")
    chosen = parser.parse_args()
    chosen.flavours = [flavour.split("=", 2) for flavour in chosen.flavour]
    if chosen.program:
        chosen.flavours.append(["mpi", os.environ["SYNCBN_MPIRUN"], chosen.program])
    if not chosen.flavours or any(len(flavour) != 3 for flavour in chosen.flavours):
        parser.error("wanted a PROGRAM, or --flavour NAME=MPIRUN=PROGRAM")
    return chosen


def is_stopped(process):
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return True  # gone
    return state in "TtZX"


def alive(folder, ranks):
    """The ranks whose processes run; all, until all have said which process they are."""
    ids = {int(path.suffix[1:]): path.read_text(encoding="ascii").strip() for path in folder.glob("pid.*")
           if path.suffix[1:].isdigit()}
    if len(ids) < ranks:
        return range(ranks)
    return [rank for rank, process in ids.items() if not is_stopped(process)]


def ranks_named_in(text, ranks):
    """Of "rank 0 of 4", "ranks 0, 3 of 4"."""
    lists = re.findall(rf"ranks? ([\d, ]+) of {ranks}\b", text)
    return {int(rank) for listed in lists for rank in listed.split(", ")}


class Run:
    """One seeded run, and what is to be said of it."""

    def __init__(self, seed, flavour, ranks):
        self.seed, self.ranks = seed, ranks
        self.name, self.mpirun, self.program = flavour
        self.job = jobs.run(self.mpirun.split(), ranks, self.program, ["random", "0", str(DEADLINE)],
                            lambda folder: alive(folder, ranks), LIMIT, {"SYNCBN_FAULT_SEED": str(seed)})
        self.is_hang = self.job.exit_code is None
        self.wrong = [] if self.is_hang else list(self.complaints())

    def misdeed(self):
        return next(iter(self.job.misdeeds.values()), "nothing")

    def complaints(self):
        """What is wrong, one sentence each."""
        reports = self.job.reports
        guilty = next(iter(self.job.misdeeds), None)
        kind = self.misdeed().split()[0]
        survivors = [r for r in range(self.ranks) if not (kind == "stop" and r == guilty)]
        for rank in survivors:
            if rank not in reports:
                yield f"rank {rank} has not reported"
        survivors = [r for r in survivors if r in reports]
        failed = [r for r in survivors if reports[r]["outcome"] != "done"]
        if kind in ("error", "stop", "never") and failed != survivors:
            yield f"{kind} on rank {guilty}, but only ranks {failed} have an error"
        if kind == "nothing" and failed:
            yield f"nothing was wrong, but ranks {failed} have an error"
        if failed and failed != survivors:
            yield f"ranks {failed} have an error, the others none"
        yield from self.complaints_of_texts(failed, guilty, kind)
        for rank in failed:
            if reports[rank]["seconds"] > TO_ERROR and not (kind == "delay" and rank == guilty):
                yield f"rank {rank}: the error came after {reports[rank]['seconds']:.2f} s"
            if reports[rank]["untouched"] != "yes":
                yield f"rank {rank}: the failed call has changed something"
            if reports[rank]["after"] not in ("unusable", "no_communicator"):
                yield f"rank {rank}: afterwards the communicator is '{reports[rank]['after']}'"
        if (self.job.exit_code != 0) != bool(failed):
            yield f"the exit code is {self.job.exit_code}"

    def complaints_of_texts(self, failed, guilty, kind):
        texts = {self.job.text_of(rank) for rank in failed}
        # One rank may be through the first operations and another still wait in them: they cannot agree, but all must name
        # the guilty one, be it among others that have heard of it and left.
        if len(texts) > 1 and not all(text.startswith("[Communicator construction]") for text in texts):
            yield f"the texts differ: {texts}"
        for text in texts:
            if kind not in ("error", "stop"):
                continue
            if self.job.misdeeds and guilty not in ranks_named_in(text, self.ranks):
                yield f"rank {guilty} is not named in: {text}"

    def command(self):
        environment = f"SYNCBN_FAULT_SEED={self.seed}"
        return (f"{environment} {self.mpirun} -n {self.ranks} {shlex.quote(self.program)} random 0 {DEADLINE}   # rank, call"
                " and misdeed are the seed's; timing is the machine's")

    def story(self):
        verdict = "HUNG" if self.is_hang else "WRONG" if self.wrong else "right"
        text = next((report["text"] for report in self.job.reports.values() if report["text"]), "no error")
        return f"{verdict:5} seed {self.seed} {self.name} {self.ranks} ranks: {self.misdeed()}: {text}"


def main():
    chosen = arguments()
    worlds = [(flavour, ranks) for ranks in chosen.ranks for flavour in chosen.flavours]
    hangs = wrong = right = 0
    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
        seeds = range(chosen.seed, chosen.seed + chosen.runs)
        for run in pool.map(lambda seed: Run(seed, *worlds[seed % len(worlds)]), seeds):
            hangs += run.is_hang
            wrong += bool(run.wrong)
            right += not run.is_hang and not run.wrong
            print(run.story(), flush=True)
            if run.is_hang or run.wrong:
                lines = [*run.wrong, f"repeat: {run.command()}", *(f"| {line}" for line in run.job.output.splitlines())]
                print("\n".join(f"      {line}" for line in lines), flush=True)
    print(f"{hangs} hangs, {wrong} wrong, {right} right")
    return 1 if hangs or wrong or not right else 0


if __name__ == "__main__":
    sys.exit(main())
