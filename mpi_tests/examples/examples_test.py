#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""examples_test.py TOLERANCE PROGRAM: losses of the example on 1, 2 and 3 ranks agree; with `local` batch norm they do not."""
import os
import re
import subprocess
import sys


def losses(ranks, *arguments):
    result = subprocess.run([*os.environ["SYNCBN_MPIRUN"].split(), "-n", str(ranks), sys.argv[2], *arguments], capture_output=True,
                            text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    found = [float(text) for text in re.findall(r"loss ([0-9.]+)", result.stdout)]
    assert len(found) >= 3, result.stdout
    return found


def distance(a, b):
    return max(abs(x - y) for x, y in zip(a, b))


alone = losses(1)
assert alone[-1] < 0.8 * alone[0] or alone[-1] < 0.5, alone
for ranks in (2, 3):
    found, local = losses(ranks), losses(ranks, "local")
    print(f"{ranks} ranks: {found}, local {local}; alone {alone}")
    assert distance(found, alone) <= float(sys.argv[1]), (found, alone)
    assert distance(local, alone) > float(sys.argv[1]), (local, alone)
