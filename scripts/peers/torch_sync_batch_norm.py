# SPDX-License-Identifier: MIT
"""Times what PyTorch users have as synchronized batch norm on CPUs, f32, NCHW: torch.nn.SyncBatchNorm takes tensors of GPUs only,
so the batch's moments are averaged over the ranks by an all-reduce that autograd can go back through, as several detection
libraries do it. scripts/bench_comm runs it beside `syncbn bench`, whose lines of JSON it prints.

    mpirun -n P torch_sync_batch_norm.py FILE SECONDS NxCxHxW,...      threads: OMP_NUM_THREADS

The shapes are global batches; each rank takes an equal part, one sample at least. FILE must not exist: the ranks meet there. All
begin a repetition together, and the slowest counts."""
import json
import os
import sys
import time

import torch
import torch.distributed as dist

LEAST_REPETITIONS = 5
EPS, MOMENTUM = 1e-5, 0.1


class SumOverRanks(torch.autograd.Function):
    """The sum of all ranks' vectors; each rank's vector has a part in all sums, so gradients are added up likewise."""

    @staticmethod
    def forward(context, vector):
        total = vector.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context, gradient):
        return SumOverRanks.forward(context, gradient)


class SyncBatchNorm:
    def __init__(self, channels):
        self.gamma = torch.empty(channels).uniform_(0.5, 1.5).requires_grad_()
        self.beta = torch.empty(channels).uniform_(-1.0, 1.0).requires_grad_()
        self.running_mean, self.running_var = torch.zeros(channels), torch.ones(channels)

    def __call__(self, x):
        axes = (0, 2, 3)
        moments = torch.stack([x.mean(axes), x.square().mean(axes)]) / dist.get_world_size()
        mean, square = SumOverRanks.apply(moments)
        var = square - mean.square()
        with torch.no_grad():
            self.running_mean.lerp_(mean, MOMENTUM)
            self.running_var.lerp_(var, MOMENTUM)
        scale = self.gamma * (var + EPS).rsqrt()
        shift = self.beta - mean * scale
        return x * scale[None, :, None, None] + shift[None, :, None, None]


def timed(work):
    """What `work` gives, and how long the slowest rank took, in milliseconds."""
    dist.barrier()
    start = time.perf_counter()
    result = work()
    milliseconds = torch.tensor([1e3 * (time.perf_counter() - start)], dtype=torch.float64)
    dist.all_reduce(milliseconds, op=dist.ReduceOp.MAX)
    return result, milliseconds.item()


def go_on(wanted):
    """Rank 0's wish, on all ranks."""
    answer = torch.tensor([1.0 if wanted else 0.0])
    dist.broadcast(answer, 0)
    return answer.item() != 0.0


def times_of(shape, seconds):
    """Milliseconds of forward and of backward passes, each in order of size."""
    own = [max(1, shape[0] // dist.get_world_size()), *shape[1:]]
    x, dy = torch.empty(own).uniform_(-1.0, 1.0).requires_grad_(), torch.empty(own).uniform_(-1.0, 1.0)
    layer = SyncBatchNorm(shape[1])
    layer(x).backward(dy)
    forward, backward = [], []
    start = time.perf_counter()
    while go_on(len(forward) < LEAST_REPETITIONS or time.perf_counter() - start < seconds):
        x.grad = layer.gamma.grad = layer.beta.grad = None
        y, milliseconds = timed(lambda: layer(x))
        forward.append(milliseconds)
        backward.append(timed(lambda: y.backward(dy))[1])
    return {"forward": sorted(forward), "backward": sorted(backward)}


def parse_shape(text):
    extents = [int(word) for word in text.split("x")]
    return extents + [1] * (4 - len(extents))


def main():
    if len(sys.argv) != 4:
        print("usage: mpirun -n P torch_sync_batch_norm.py FILE SECONDS NxCxHxW,...", file=sys.stderr)
        return 2
    meeting, seconds, shapes = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    rank, ranks = (int(os.environ.get(f"OMPI_COMM_WORLD_{what}", default)) for what, default in (("RANK", 0), ("SIZE", 1)))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    dist.init_process_group("gloo", init_method=f"file://{os.path.abspath(meeting)}", rank=rank, world_size=ranks)
    for text in shapes.split(","):
        shape = parse_shape(text)
        for name, times in times_of(shape, seconds).items():
            if rank == 0:
                print(json.dumps({"who": f"torch-{torch.__version__}-gloo", "ranks": ranks, "threads": torch.get_num_threads(),
                                  "layout": "nchw", "shape": shape, "dtype": "f32", "pass": name,
                                  "median_ms": times[len(times) // 2], "min_ms": times[0]}), flush=True)
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
