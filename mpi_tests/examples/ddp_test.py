#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""ddp_test.py SCRIPT: the PyTorch example under torchrun on 4 processes, synchronized and local, on real digits where they are."""
import os
import re
import subprocess
import sys

data = os.environ["SYNCBN_DATA"]
options = ["--data", data] if os.path.isdir(data) else []
if not options:
    print("made-up digits: there is no folder of real ones")


def error(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4", "--rdzv-backend", "c10d", "--rdzv-endpoint",
               "localhost:0", sys.argv[1], "--epochs", "1", "--batch", "8", *options, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stdout + result.stderr
    return float(re.findall(r"test error ([0-9.]+) %", result.stdout)[-1])


sync, local = error(), error("--batch-norm", "local")
print(f"test error after one epoch, 2 samples a process: sync {sync} %, local {local} %")
assert sync < 40, sync
