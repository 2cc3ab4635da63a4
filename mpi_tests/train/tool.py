# SPDX-License-Identifier: MIT
"""Runs the syncbn program for the tests of this folder."""
import os
import subprocess

RANKS = int(os.environ.get("SYNCBN_RANKS", "1"))


def run(*arguments: str, ranks: int = RANKS) -> subprocess.CompletedProcess:
    """stdout, stderr and exit code of `mpirun -n ranks syncbn arguments...`; one rank runs without mpirun."""
    launcher = [*os.environ["SYNCBN_MPIRUN"].split(), "-n", str(ranks)] if ranks > 1 else []
    command = [*launcher, os.environ["SYNCBN_TOOL"], *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def value_after(text: str, label: str) -> str:
    """The rest of the only line that begins with `label`."""
    lines = [line for line in text.splitlines() if line.startswith(label)]
    if len(lines) != 1:
        raise AssertionError(f"{len(lines)} lines begin with {label!r} in:\n{text}")
    return lines[0][len(label):].strip()
