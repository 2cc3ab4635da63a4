# SPDX-License-Identifier: MIT
"""Trainings that tests kill or stop."""
import json
import os
import pathlib
import subprocess
import time

from tool import RANKS, ToolTest

LIMIT_SECONDS = 60


def start(*arguments: str) -> subprocess.Popen:
    """As run() of tool.py, without waiting."""
    launcher = [*os.environ["SYNCBN_MPIRUN"].split(), "-n", str(RANKS)] if RANKS > 1 else []
    command = [*launcher, os.environ["SYNCBN_TOOL"], *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def descendants_of(pid: int) -> list[int]:
    """All processes below `pid`, as far as they are still there."""
    found = []
    try:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants_of(int(child))]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def rank_in(pid: int) -> int | None:
    """The rank that the launcher gave to a process of the program; none if it is another program, or gone."""
    try:
        if not os.path.samefile(f"/proc/{pid}/exe", os.environ["SYNCBN_TOOL"]):
            return None
        for variable in pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _, value = variable.partition(b"=")
            if name in (b"OMPI_COMM_WORLD_RANK", b"PMI_RANK"):
                return int(value)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return None


def ranks_of(process: subprocess.Popen) -> list[int]:
    """The process numbers of the ranks, in their order. They are mpirun's children (Open MPI), or those of a proxy that it
    starts (MPICH's Hydra); without mpirun the process itself."""
    if RANKS == 1:
        return [process.pid]
    ranks = {rank_in(pid): pid for pid in descendants_of(process.pid)}
    ranks.pop(None, None)
    return [ranks[rank] for rank in sorted(ranks)]


def steps_in(metrics: pathlib.Path) -> int:
    """Steps that have been recorded."""
    return metrics.read_text().count('"kind":"step"')


def wait_for_steps(process: subprocess.Popen, metrics: pathlib.Path, steps: int) -> None:
    """Until so many steps have been recorded, or the process has ended."""
    end = time.monotonic() + LIMIT_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            if steps_in(metrics) >= steps:
                return
        except FileNotFoundError:
            pass  # not yet, or replaced just now
        time.sleep(0.01)


class DisturbedTest(ToolTest):
    """Has a folder for the training that is disturbed."""

    def setUp(self):
        super().setUp()
        self.out = self.folder / "run"

    def finish(self, process: subprocess.Popen) -> tuple[str, str]:
        try:
            return process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            self.fail(f"still running after {LIMIT_SECONDS} s: {process.communicate()}")

    def records(self, folder: pathlib.Path) -> list[dict]:
        """What a resumed training repeats: no times, nor drift, which is recorded as time allows and on several ranks; and it
        may go on on another number of ranks."""
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        lines = [line for line in lines if line["kind"] != "drift"]
        for line in lines:
            for other in ("seconds", "step_seconds", "step_costs", "ranks"):
                line.pop(other, None)
        return lines
