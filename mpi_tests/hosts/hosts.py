# SPDX-License-Identifier: MIT
"""Runs programs over several hosts by scripts/hosts; ends the test as skipped where that cannot be done."""
import os
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(os.environ["SYNCBN_SOURCE_DIR"]) / "scripts/hosts"
MPIRUN = os.environ["SYNCBN_MPIRUN"].split()
SECONDS = 60  # a job takes about two; a hang is a failure
CANNOT = 77


def environment():
    return {**os.environ, "MPIRUN": MPIRUN[0]}


def run(program, hosts=4, ranks_per_host=2, options=()):
    """Runs `program` (a list) on all ranks."""
    command = [str(SCRIPT), "-H", str(hosts), "-s", str(ranks_per_host), "-T", str(SECONDS), *options, "--",
               *map(str, program)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 30, env=environment(),
                          stdin=subprocess.DEVNULL)


def reason_against(options=()):
    """Why hosts cannot be made here with these options; None if they can. Only what scripts/hosts itself says counts, so
    that a program that skips is not taken for it."""
    tried = run(["true"], hosts=2, ranks_per_host=1, options=options)
    said = [line for line in tried.stderr.splitlines() if line.startswith("scripts/hosts: ")]
    if tried.returncode == CANNOT and said:
        return said[-1]
    if tried.returncode != 0:
        sys.exit(f"scripts/hosts ended with {tried.returncode} for `true`\n{tried.stdout}{tried.stderr}")
    return None


def skip_unless_possible():
    reason = reason_against()
    if reason:
        print(f"skipped: {reason}")
        sys.exit(CANNOT)
