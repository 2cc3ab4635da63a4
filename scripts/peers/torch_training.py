# SPDX-License-Identifier: MIT
"""Times the training steps of PyTorch on the CPU, f32: the network cnn of src/train/network.cpp, layer by layer, with
DistributedDataParallel over gloo. scripts/bench_ddp runs it beside `syncbn train --network cnn`.

    mpirun -n P torch_training.py FILE BATCH DATA      threads: OMP_NUM_THREADS

One epoch of steps of BATCH samples over all ranks, on the images of MNIST's files in DATA; '' for random ones, as many and as large
as the built-in ones of syncbn. FILE must not exist: the ranks meet there. Prints a line of JSON with the median of a step on rank 0:
samples to tensors, forward, loss, backward with the all-reduce of gradients, update.

Batch norm is torch.nn.BatchNorm2d, of each rank's own samples: PyTorch's SyncBatchNorm takes tensors of GPUs only. Nor are its
running statistics broadcast (forward_sync_buffers=False), so no step has messages but for gradients."""
import gzip
import json
import os
import pathlib
import statistics
import sys
import time

import numpy
import torch
import torch.distributed as dist
from torch import nn

CLASSES = 10
RATE, MOMENTUM, WEIGHT_DECAY = 0.05, 0.9, 1e-4
BUILT_IN = (3000, 12, 12)


def read_idx(path):
    """An array of bytes from an IDX file, raw or gzipped."""
    raw = path.read_bytes() if path.exists() else gzip.decompress(pathlib.Path(f"{path}.gz").read_bytes())
    extents = [int.from_bytes(raw[4 + 4 * axis:8 + 4 * axis], "big") for axis in range(raw[3])]
    return torch.from_numpy(numpy.frombuffer(raw, numpy.uint8, offset=4 + 4 * len(extents)).reshape(extents).copy())


def load(folder):
    if folder:
        return [read_idx(pathlib.Path(folder) / f"train-{what}-ubyte") for what in ("images-idx3", "labels-idx1")]
    return [torch.randint(0, 256, BUILT_IN, dtype=torch.uint8), torch.randint(0, CLASSES, BUILT_IN[:1], dtype=torch.uint8)]


def make_cnn(height, width):
    layers = [nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
              nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    height, width = height // 2, width // 2
    while True:
        layers.append(nn.AvgPool2d(2))
        height, width = height // 2, width // 2
        if height <= 6 or width <= 6:
            break
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * height * width, CLASSES))


def make_optimizer(model):
    """Weights decay; biases, gamma and beta do not."""
    parameters = list(model.parameters())
    groups = [{"params": [p for p in parameters if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
              {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=RATE, momentum=MOMENTUM)


def step_seconds(images, labels, batch):
    """Of each step of one epoch."""
    model = nn.parallel.DistributedDataParallel(make_cnn(*images.shape[1:]), forward_sync_buffers=False, gradient_as_bucket_view=True)
    optimizer = make_optimizer(model)
    steps = len(images) // batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    own = batch // dist.get_world_size()
    times = []
    for step in range(steps):
        start = time.perf_counter()
        mine = order[step * batch + dist.get_rank() * own:][:own]
        x = (images[mine].unsqueeze(1).float() * 2 - 255) / 255
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels[mine].long()).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
        schedule.step()
    return times


def main():
    if len(sys.argv) != 4:
        print("usage: mpirun -n P torch_training.py FILE BATCH DATA", file=sys.stderr)
        return 2
    meeting, batch, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    rank, ranks = (int(os.environ.get(f"OMPI_COMM_WORLD_{what}", default)) for what, default in (("RANK", 0), ("SIZE", 1)))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(1)
    dist.init_process_group("gloo", init_method=f"file://{os.path.abspath(meeting)}", rank=rank, world_size=ranks)
    images, labels = load(folder)
    times = step_seconds(images, labels, batch)
    if rank == 0:
        print(json.dumps({"who": f"torch-{torch.__version__}-gloo", "ranks": ranks, "threads": torch.get_num_threads(),
                          "steps": len(times), "step_seconds": statistics.median(times)}), flush=True)
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # DDP's threads are sometimes still there when static objects go, which ends in std::terminate()


if __name__ == "__main__":
    sys.exit(main())
