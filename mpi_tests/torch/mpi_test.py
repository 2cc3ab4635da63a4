#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The PyTorch module under mpirun, over an mpi4py communicator: no torch.distributed anywhere."""
import sys

import torch
from mpi4py import MPI

from syncbn.torch import SyncBatchNorm, convert_sync_batchnorm

WORLD = MPI.COMM_WORLD
torch.set_num_threads(1)
torch.manual_seed(41)
X, DY = torch.randn(11, 3, 4, 5), torch.randn(11, 3, 4, 5)
BOUNDS = [11 * r // WORLD.size for r in range(WORLD.size + 1)]
MINE = slice(BOUNDS[WORLD.rank], BOUNDS[WORLD.rank + 1])


def train(net, x, dy):
    x = x.clone().requires_grad_()
    y = net(x)
    y.backward(dy)
    return y.detach(), x.grad


def main():
    torch.manual_seed(42)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3))
    single = convert_sync_batchnorm(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)), MPI.COMM_SELF)
    single.load_state_dict(net.state_dict())
    net = convert_sync_batchnorm(net, WORLD)
    assert isinstance(net[1], SyncBatchNorm) and net[1].process_group is WORLD
    # The convolution in front may depend on the number of samples in its last bits: only the batch norm's input decides here.
    whole_y, whole_dx = train(single[1], X, DY)
    y, dx = train(net[1], X[MINE], DY[MINE])
    assert torch.equal(y, whole_y[MINE]) and torch.equal(dx, whole_dx[MINE])
    assert torch.equal(net[1].running_var, single[1].running_var)
    train(net, X[MINE], torch.ones_like(X[MINE]))

    try:
        net[1](X[MINE] if WORLD.rank else X[MINE, :2])
        raise AssertionError("a wrong channel count was taken")
    except ValueError as error:
        texts = set(WORLD.allgather(str(error).splitlines()[0]))
        assert len(texts) == 1 and "x has 2 channels, num_features is 3" in texts.pop()

    # A freed communicator's number goes to the next one; a layer on the freed one is still alive.
    all_of_them, alone = WORLD.Split(0), SyncBatchNorm(3, process_group=MPI.COMM_SELF)
    number, first = all_of_them.py2f(), SyncBatchNorm(3, process_group=all_of_them)
    first(X[MINE])
    all_of_them.Free()
    just_me = WORLD.Split(WORLD.rank)
    assert just_me.py2f() == number, "MPI gave another number: this test tests nothing"
    assert torch.equal(SyncBatchNorm(3, process_group=just_me)(X[MINE]), alone(X[MINE]))


def everywhere(failed):
    return max(WORLD.allgather(failed))


code = 0
try:
    main()
except AssertionError as error:
    print(f"rank {WORLD.rank}: {error!r}", file=sys.stderr)
    code = 1
sys.exit(everywhere(code))
