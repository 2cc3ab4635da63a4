#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The distributed batch norm tests of PyTorch and Apex, rewritten for processes on CPUs: their nets, shapes and PyTorch's default
tolerances (f32: rtol 1.3e-6, atol 1e-5; f64: 1e-7). They compare parameters; here outputs, dx, gradients and running statistics are
compared as well."""
import unittest

import processes
from processes import RANK, WORLD, gathered, part

if RANK >= 0:
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    from syncbn.torch import SyncBatchNorm, convert_sync_batchnorm

    class BatchNormNet(torch.nn.Module):
        """PyTorch's: a batch norm of 4 channels and 10 positions between two linear layers."""

        def __init__(self, affine=True):
            super().__init__()
            self.fc1 = torch.nn.Linear(2, 40, bias=False)
            self.bn = torch.nn.BatchNorm1d(4, affine=affine)
            self.fc2 = torch.nn.Linear(40, 4, bias=False)

        def forward(self, x):
            x = self.fc1(x).reshape(-1, 4, 10)
            x = self.bn(x).reshape(-1, 40)
            return torch.softmax(self.fc2(x), dim=1)

    class TwoInputs(torch.nn.Module):
        """A batch norm right behind the input: BatchNorm1d(2) of 2-D data."""

        def __init__(self):
            super().__init__()
            self.bn = torch.nn.BatchNorm1d(2)
            self.fc = torch.nn.Linear(2, 4, bias=False)

        def forward(self, x):
            return torch.softmax(self.fc(self.bn(x)), dim=1)


def setUpModule():
    processes.start()


def tearDownModule():
    processes.stop()


class OfPyTorch(unittest.TestCase):
    def compare(self, net, counts, dtype, steps=5):
        """Five steps of the whole batch in one process, and of its parts under DDP: all parameters and buffers after each."""
        offset, total = sum(counts[:RANK]), sum(counts)
        torch.manual_seed(31)
        single = net().to(dtype)
        ours = convert_sync_batchnorm(net().to(dtype))
        ours.load_state_dict(single.state_dict())
        parallel = DistributedDataParallel(ours)
        x = torch.randn(total, 2, dtype=dtype)
        target = torch.randn(total, 4, dtype=dtype)
        mine = slice(offset, offset + counts[RANK])
        for _ in range(steps):
            wanted, got = single(x), parallel(x[mine])
            torch.testing.assert_close(got, wanted[mine])
            torch.nn.functional.mse_loss(wanted, target).backward()
            # DDP averages over processes, the loss over this one's samples.
            (torch.nn.functional.mse_loss(got, target[mine]) * (WORLD * counts[RANK] / total)).backward()
            for model in (single, ours):
                with torch.no_grad():
                    for p in model.parameters():
                        p += p.grad
                        p.grad = None
            x = x[torch.randperm(total, generator=torch.Generator().manual_seed(total))]
            for name, value in single.state_dict().items():
                torch.testing.assert_close(ours.state_dict()[name], value, msg=lambda m: f"{name}: {m}")

    def test_sync_batch_norm(self):
        for dtype in (torch.float32, torch.float64):
            self.compare(BatchNormNet, [2] * WORLD, dtype)

    def test_no_affine(self):
        self.compare(lambda: BatchNormNet(affine=False), [2] * WORLD, torch.float64)

    def test_2d_input(self):
        self.compare(TwoInputs, [2] * WORLD, torch.float64)

    def test_single_input_per_process(self):
        if WORLD > 1:  # PyTorch's own batch norm refuses one value per channel
            self.compare(TwoInputs, [1] * WORLD, torch.float64)
            self.compare(BatchNormNet, [1] * WORLD, torch.float32)

    def test_different_input_sizes_gradient(self):
        self.compare(BatchNormNet, [rank + 2 for rank in range(WORLD)], torch.float32)
        self.compare(BatchNormNet, [rank + 2 for rank in range(WORLD)], torch.float64)

    def test_different_input_sizes_running_value(self):
        """Process i has 10^(i+1) positions; after 100 steps with momentum 0.99 the running statistics are those of the batch."""
        parts = [torch.cat([torch.full((2, 1, 10 ** (i + 1)), 0.1 ** (i - 1)), torch.full((2, 1, 10 ** (i + 1)), 0.3 ** (i - 1))], dim=1)
                 for i in range(WORLD)]
        module = SyncBatchNorm(2, momentum=0.99)
        for _ in range(100):
            module(parts[RANK])
        values = torch.cat([p.transpose(0, 1).reshape(2, -1) for p in parts], dim=1)
        torch.testing.assert_close(module.running_mean, values.mean(1))
        torch.testing.assert_close(module.running_var, values.var(1))

    def test_channels_last(self):
        for shape, memory_format in (((2 * WORLD, 2, 4, 4), torch.channels_last), ((2 * WORLD, 2, 4, 4, 4), torch.channels_last_3d)):
            torch.manual_seed(32)
            x = torch.randn(shape).contiguous(memory_format=memory_format)
            first, last = SyncBatchNorm(2), SyncBatchNorm(2)
            y = last(part(x))
            self.assertTrue(y.is_contiguous(memory_format=memory_format))
            torch.testing.assert_close(y, first(part(x).contiguous()))
            torch.testing.assert_close(last.running_var, first.running_var)

    def test_only_empty_input(self):
        for counts in ([0] + [1] * (WORLD - 1), [0] * WORLD):
            module = SyncBatchNorm(2)
            x = torch.zeros(counts[RANK], 2, 11, 13, requires_grad=True)
            y = module(x)
            y.sum().backward()
            self.assertEqual((y.shape, x.grad.shape), (x.shape, x.shape))
            for tensor in (y, x.grad, module.weight.grad, module.bias.grad, module.running_mean, module.running_var):
                self.assertTrue(torch.isfinite(tensor).all())
            if sum(counts) == 0:
                self.assertEqual((module.num_batches_tracked.item(), module.running_var.tolist()), (0, [1.0, 1.0]))

    def test_empty_input(self):
        """Convolution, batch norm, linear under DDP where process 0 has no samples."""
        torch.manual_seed(33)
        net = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(28, 2))
        net = DistributedDataParallel(convert_sync_batchnorm(net))
        for count in (0 if RANK == 0 else 3, 0):
            y = net(torch.randn(count, 2, 30, 30))
            self.assertEqual(tuple(y.shape), (count, 2, 28, 2))
            y.sum().backward()
            self.assertTrue(all(torch.isfinite(p.grad).all() for p in net.parameters()))

    def test_process_group_is_handed_on(self):
        group = dist.new_group(list(range(WORLD)))
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Sequential(torch.nn.BatchNorm2d(8)))
        converted = convert_sync_batchnorm(net, group)
        self.assertTrue(all(m.process_group is group for m in converted.modules() if isinstance(m, SyncBatchNorm)))

    def test_splits_have_equal_gradients(self):
        """Nobody says whether (0, 2) and (1, 1) samples give the same: here they do, to the byte."""
        torch.manual_seed(34)
        x, dy = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
        found = []
        for first in range(3):
            counts = [first, 2 - first] + [0] * WORLD
            mine = slice(sum(counts[:RANK]), sum(counts[:RANK + 1])) if WORLD > 1 else slice(0, 2)
            piece = x[mine].clone().requires_grad_()
            module = SyncBatchNorm(3)
            module(piece).backward(dy[mine])
            found.append(torch.cat(gathered(piece.grad)))
        self.assertTrue(torch.equal(found[0], found[1]) and torch.equal(found[0], found[2]))


class OfApex(unittest.TestCase):
    def test_against_f64(self):
        """(32, 10, 40, 40), weights and momentum 1: output, gradients, statistics within 1e-5 (f32) and 1e-8 (f64)."""
        torch.manual_seed(18)
        x, dy = torch.randn(32, 10, 40, 40, dtype=torch.float64), torch.randn(32, 10, 40, 40, dtype=torch.float64)
        weight, bias = torch.randn(10, dtype=torch.float64), torch.randn(10, dtype=torch.float64)
        for dtype, error in ((torch.float32, 1e-5), (torch.float64, 1e-8)):
            right, ours = torch.nn.BatchNorm2d(10, momentum=1.0, dtype=torch.float64), SyncBatchNorm(10, momentum=1.0, dtype=dtype)
            for module in (right, ours):
                module.weight.data.copy_(weight), module.bias.data.copy_(bias)
            wanted, mine = x.to(dtype).double().detach().requires_grad_(), part(x).to(dtype).detach().requires_grad_()
            y = right(wanted)
            y.backward(dy.to(dtype).double())
            got = ours(mine)
            got.backward(part(dy).to(dtype))
            gradients = [ours.weight.grad, ours.bias.grad]
            for gradient in gradients:
                dist.all_reduce(gradient)
            pairs = [(got, part(y.detach())), (mine.grad, part(wanted.grad)), (ours.running_mean, right.running_mean),
                     (ours.running_var, right.running_var)]
            pairs += [(g / 51200 ** 0.5, w / 51200 ** 0.5) for g, w in zip(gradients, (right.weight.grad, right.bias.grad))]
            for value, right_value in pairs:
                torch.testing.assert_close(value.double(), right_value, rtol=error, atol=error)

    def test_different_batch_sizes(self):
        """Process 0 has 16 samples times 50, the others 8 each; dx included, which Apex left out."""
        torch.manual_seed(1)
        counts = [16] + [8] * (WORLD - 1)
        x = torch.cat([torch.randn(c, 3, 8, 8) * (50 if r == 0 else 1) for r, c in enumerate(counts)])
        dy = torch.randint(0, 10, (sum(counts), 6, 8, 8)) / 10 * 2 / 24
        conv = torch.nn.Conv2d(3, 6, 3, 1, 1)
        single = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(6)).double()
        wanted = x.double().requires_grad_()
        y = single(wanted)
        y.backward(dy.double())
        ours = DistributedDataParallel(convert_sync_batchnorm(torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3, 1, 1), torch.nn.BatchNorm2d(6))))
        ours.module[0].load_state_dict(single[0].state_dict())
        mine = slice(sum(counts[:RANK]), sum(counts[:RANK + 1]))
        piece = x[mine].clone().requires_grad_()
        got = ours(piece)
        got.backward(dy[mine])
        torch.testing.assert_close(got.double(), y[mine].detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(piece.grad.double(), wanted.grad[mine], rtol=1e-4, atol=1e-7)
        # The gradient of the convolution's bias is 0 but for rounding: a batch norm follows.
        scale = max(p.grad.abs().max().item() for p in single.parameters())
        for value, right in zip(ours.parameters(), single.parameters()):
            torch.testing.assert_close(value.grad.double() * WORLD / scale, right.grad / scale, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.module[1].running_var.double(), single[1].running_var, rtol=1e-5, atol=1e-5)


if __name__ == "__main__":
    processes.main()
