# SPDX-License-Identifier: MIT
"""Runs a unittest script in 1 to 4 processes of torch.distributed (gloo), and compares what it calls bits() with across their numbers.

A script ends with `processes.main()`. In its tests: RANK, WORLD, part() and gathered().
"""
import datetime
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import unittest

WORLDS = [int(w) for w in os.environ.get("SYNCBN_TORCH_PROCESSES", "1 2 3 4").split()]
SECONDS = int(os.environ.get("SYNCBN_TEST_LIMIT_SECONDS", "100"))
RANK = int(os.environ.get("SYNCBN_TEST_RANK", "-1"))
WORLD = int(os.environ.get("SYNCBN_TEST_WORLD", "0"))
SKIPS = 77


def start():
    """Joins the processes of this test. To be called once, in setUpModule."""
    import torch
    import torch.distributed as dist
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{os.environ['SYNCBN_TEST_STORE']}", rank=RANK, world_size=WORLD,
                            timeout=datetime.timedelta(seconds=60))


def stop():
    import torch.distributed as dist
    dist.destroy_process_group()


def part(tensor, rank=None, weights=None):
    """This process's samples: as even as can be, or in proportion to weights (0: none)."""
    import torch
    weights = weights or [1] * WORLD
    bounds = [tensor.shape[0] * sum(weights[:r]) // sum(weights) for r in range(WORLD + 1)]
    rank = RANK if rank is None else rank
    memory_format = torch.preserve_format
    return tensor[bounds[rank]:bounds[rank + 1]].clone(memory_format=memory_format)


def gathered(value):
    """Every process's object, in order."""
    import torch.distributed as dist
    values = [None] * WORLD
    dist.all_gather_object(values, value)
    return values


def bits(name, *tensors):
    """These tensors, parts in the order of processes, are the same bytes for every number of processes."""
    import torch
    wholes = [torch.cat(parts) for parts in zip(*gathered(tensors))]
    if RANK == 0:
        data = b"".join(t.contiguous().view(torch.uint8).numpy().tobytes() for t in wholes)
        print(f"\nBITS {name} {hashlib.sha256(data).hexdigest()[:16]}", flush=True)


def _run(world: int, is_last: bool = False) -> dict:
    """One run of the script in `world` processes: its bits, by name. Exits with 1 if a test fails, or if it does not end a second
    time: where a machine has ten things to do at once, importing PyTorch can take longer than that. Then all say where they are."""
    with tempfile.TemporaryDirectory() as folder:
        children = []
        for rank in range(world):
            environment = {**os.environ, "SYNCBN_TEST_RANK": str(rank), "SYNCBN_TEST_WORLD": str(world), "OMP_NUM_THREADS": "1",
                           "SYNCBN_TEST_STORE": os.path.join(folder, "store"), "SYNCBN_DEADLINE_SECONDS": "60",
                           "PYTHONFAULTHANDLER": "1"}
            children.append(subprocess.Popen([sys.executable, "-B", sys.argv[0]], env=environment, stdout=subprocess.PIPE,
                                             stderr=subprocess.STDOUT, text=True))
        outputs = []
        try:
            outputs = [child.communicate(timeout=SECONDS)[0] for child in children]
        except subprocess.TimeoutExpired:
            for child in children:
                child.send_signal(signal.SIGABRT)  # Python's fault handler prints the stacks of all threads
            print(f"{world} processes have not ended in {SECONDS} s:", *(child.communicate()[0] for child in children), sep="\n", flush=True)
            if not is_last:
                return _run(world, is_last=True)
        finally:
            for child in children:
                child.kill()
        if not outputs:
            sys.exit(1)
        for rank, (child, output) in enumerate(zip(children, outputs)):
            if child.returncode != 0:
                print(f"process {rank} of {world} ended with {child.returncode}:\n{output}")
                sys.exit(1)
        summary = next(line for line in outputs[0].splitlines() if line.startswith("Ran "))
        print(f"{world} processes: {summary}", flush=True)
        return {name: value for line in outputs[0].splitlines() if line.startswith("BITS ") for name, value in [line.split()[1:]]}


def main():
    if RANK >= 0:
        unittest.main(verbosity=2)
    try:
        import torch  # noqa: F401
    except ImportError:
        print("skipped: this Python has no PyTorch")
        sys.exit(SKIPS)
    first = None
    for world in WORLDS:
        found = _run(world)
        first = first if first is not None else found
        if found != first:
            print(f"{world} processes have other bits than {WORLDS[0]}: {found} and {first}")
            sys.exit(1)
    print(f"the same bits for {WORLDS} processes: {first}")
