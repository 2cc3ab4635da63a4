# SPDX-License-Identifier: MIT
"""Runs fault_program under mpirun: bounded in time, whatever its ranks do, and nothing of it is left behind."""
import os
import pathlib
import signal
import subprocess
import tempfile
import time


class Job:
    """What became of one run."""

    def __init__(self):
        # Those that came before the ranks were told to end: a launcher may wake a stopped rank to end it.
        self.reports = {}  # rank -> {"outcome": ..., "seconds": ..., "untouched": ..., "after": ..., "text": ...}
        self.misdeeds = {}  # rank -> words
        self.exit_code = None  # None: it had to be killed
        self.seconds = 0.0  # until the launcher was gone
        self.seconds_to_end = 0.0  # of these, after everybody had reported
        self.output = ""

    def text_of(self, rank):
        return self.reports[rank]["text"] if rank in self.reports else ""


def parse(line):
    fields, text = line.rstrip("\n").split(" text=", 1)
    report = dict(field.split("=", 1) for field in fields.split(" "))
    return {**report, "seconds": float(report["seconds"]), "text": text}


def read_reports(folder):
    found = {}
    for path in folder.glob("rank.*"):
        if path.suffix[1:].isdigit():
            found[int(path.suffix[1:])] = parse(path.read_text(encoding="utf-8"))
    return found


def kill(launcher, folder):
    """The launcher and the processes that have said who they are."""
    ids = [int(path.read_text(encoding="ascii")) for path in folder.glob("pid.*") if path.suffix[1:].isdigit()]
    for process in [*ids, launcher.pid]:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
    launcher.wait()


def run(mpirun, ranks, program, arguments, expected, limit, environment=None):
    """Runs `program` on `ranks` ranks. As soon as the ranks in `expected` have reported they are told to end; after
    `limit` seconds all are killed."""
    job = Job()
    with tempfile.TemporaryDirectory(prefix="syncbn-fault-") as name:
        folder = pathlib.Path(name)
        with open(folder / "output", "w+", encoding="utf-8", errors="replace") as output:
            begin = time.monotonic()
            launcher = subprocess.Popen(
                [*mpirun, "-n", str(ranks), program, *arguments], stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, env={**os.environ, **(environment or {}), "SYNCBN_FAULT_REPORTS": name})
            told = None
            while launcher.poll() is None and time.monotonic() - begin < limit:
                if told is None and set(expected(folder)) <= set(read_reports(folder)):
                    told = time.monotonic()
                    job.reports = read_reports(folder)
                    (folder / "end").touch()
                time.sleep(0.02)
            job.exit_code = launcher.poll()
            kill(launcher, folder)
            end = time.monotonic()
            job.seconds = end - begin
            job.seconds_to_end = end - told if told is not None else 0.0
            if told is None:
                job.reports = read_reports(folder)
            job.misdeeds = {int(path.suffix[1:]): path.read_text(encoding="utf-8").strip()
                            for path in folder.glob("misdeed.*") if path.suffix[1:].isdigit()}
            output.seek(0)
            job.output = output.read()
    return job
