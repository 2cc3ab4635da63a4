#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A PyTorch trainer on CPUs, data-parallel.

    torchrun --nproc-per-node 4 train_ddp.py [--batch-norm sync|local] [--data DIR] [--epochs N] [--batch B]

DIR has images under MNIST's file names; without it digits are made up. Local batch norm is what PyTorch has: each process normalizes
with the statistics of its own samples."""
import argparse
import gzip
import pathlib
import struct

import torch
import torch.distributed as dist
import torch.nn.functional as F


def images_and_labels(folder, part):
    """(N, 1, H, W) floats and labels from IDX files, gzipped or not."""
    arrays = []
    for what, dimensions in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1)):
        path = next(p for p in (pathlib.Path(folder) / f"{part}-{what}", pathlib.Path(folder) / f"{part}-{what}.gz") if p.exists())
        data = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
        shape = struct.unpack(f">{dimensions}I", data[4:4 + 4 * dimensions])
        arrays.append(torch.frombuffer(bytearray(data[4 + 4 * dimensions:]), dtype=torch.uint8).reshape(shape))
    return arrays[0][:, None].float() / arrays[0].max(), arrays[1].long()


def made_up(count, seed):
    """Ten blurred patterns, shifted and noisy."""
    generator = torch.Generator().manual_seed(7)
    patterns = torch.rand(10, 1, 8, 8, generator=generator)
    generator.manual_seed(seed)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return patterns[labels] + 0.5 * torch.randn(count, 1, 8, 8, generator=generator), labels


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-norm", choices=("sync", "local"), default="sync")
    parser.add_argument("--data")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16, help="over all processes")
    options = parser.parse_args()

    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train = images_and_labels(options.data, "train") if options.data else made_up(2000, 1)
    test = images_and_labels(options.data, "t10k") if options.data else made_up(500, 2)

    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
        torch.nn.Conv2d(16, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(256, 10))
    if options.batch_norm == "sync":
        import syncbn.torch
        model = syncbn.torch.convert_sync_batchnorm(model)
    model = torch.nn.parallel.DistributedDataParallel(model)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(options.epochs):
        model.train()
        for batch in torch.randperm(len(train[1])).split(options.batch):
            if len(batch) < options.batch:
                continue
            mine = batch[rank * len(batch) // world:(rank + 1) * len(batch) // world]
            optimizer.zero_grad()
            # DDP averages gradients over processes; parts of a batch may differ by a sample.
            loss = F.cross_entropy(model(train[0][mine]), train[1][mine]) * (len(mine) * world / len(batch))
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            error = (model.module(test[0]).argmax(1) != test[1]).float().mean().item()
        if rank == 0:
            print(f"epoch {epoch + 1}: test error {100 * error:.2f} %", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
