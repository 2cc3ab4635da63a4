# SPDX-License-Identifier: MIT
"""Times syncbn.torch.SyncBatchNorm over gloo and over MPI, and beside it the synchronized batch norm of torch_sync_batch_norm.py, which
is over gloo, in turns in the same processes. Lines of JSON, as there.

    mpirun -n P torch_module.py FILE SECONDS NxCxHxW,...      FILE "-": one process alone, the module beside PyTorch's local one
"""
import json
import os
import sys
import time

import torch
import torch.distributed as dist

from mpi4py import MPI

import torch_sync_batch_norm as other
from syncbn.torch import SyncBatchNorm


def medians(layers, x, dy, timed, go_on, seconds):
    """Medians of forward and backward milliseconds of each layer."""
    times = {name: ([], []) for name in layers}
    for layer in layers.values():
        layer(x).backward(dy)
    start = time.perf_counter()
    while go_on(len(next(iter(times.values()))[0]) < other.LEAST_REPETITIONS or time.perf_counter() - start < seconds):
        for name, layer in layers.items():
            x.grad = None
            y, milliseconds = timed(lambda: layer(x))
            times[name][0].append(milliseconds)
            times[name][1].append(timed(lambda: y.backward(dy))[1])
    return {name: [sorted(t)[len(t) // 2] for t in pair] for name, pair in times.items()}


def timed_alone(work):
    start = time.perf_counter()
    result = work()
    return result, 1e3 * (time.perf_counter() - start)


def main():
    meeting, seconds, shapes = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    rank, ranks = (int(os.environ.get(f"OMPI_COMM_WORLD_{what}", default)) for what, default in (("RANK", 0), ("SIZE", 1)))
    torch.set_num_threads(1)
    is_alone = meeting == "-"
    if is_alone:
        rank, ranks = 0, 1
    else:
        dist.init_process_group("gloo", init_method=f"file://{os.path.abspath(meeting)}", rank=rank, world_size=ranks)
    for text in shapes.split(","):
        shape = other.parse_shape(text)
        own = [max(1, shape[0] // ranks), *shape[1:]]
        x, dy = torch.empty(own).uniform_(-1.0, 1.0).requires_grad_(), torch.empty(own).uniform_(-1.0, 1.0)
        layers = {"module": SyncBatchNorm(shape[1])}
        if is_alone:
            layers["local"] = torch.nn.BatchNorm2d(shape[1])  # what a step of PyTorch's own costs whatever the layer is
        else:
            layers["gloo"] = other.SyncBatchNorm(shape[1])
            layers["mpi"] = SyncBatchNorm(shape[1], process_group=MPI.COMM_WORLD)
        arguments = (timed_alone, lambda wanted: wanted) if is_alone else (other.timed, other.go_on)
        for name, pair in medians(layers, x, dy, *arguments, seconds).items():
            for direction, milliseconds in zip(("forward", "backward"), pair):
                if rank == 0:
                    print(json.dumps({"who": name, "ranks": ranks, "shape": shape, "pass": direction, "median_ms": milliseconds}),
                          flush=True)
    if not is_alone:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
