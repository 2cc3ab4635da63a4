#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""SyncBatchNorm in 1 to 4 processes against PyTorch's own batch norm of the whole batch, and its contract as a module."""
import copy
import io
import os
import pickle
import subprocess
import sys
import unittest

import processes
from processes import RANK, WORLD, bits, gathered, part

if RANK >= 0:
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.checkpoint import checkpoint

    import syncbn.torch
    from syncbn.torch import SyncBatchNorm, convert_sync_batchnorm, revert_sync_batchnorm


def setUpModule():
    processes.start()


def tearDownModule():
    processes.stop()


def whole(shape, seed, dtype, memory_format=None):
    """x and dy of the whole batch, made alike in every process."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 3).to(dtype)
    dy = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    if memory_format is not None:
        x, dy = x.contiguous(memory_format=memory_format), dy.contiguous(memory_format=memory_format)
    return x, dy


def parameters(module):
    with torch.no_grad():
        generator = torch.Generator().manual_seed(5)
        module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
        module.bias.copy_(torch.rand(module.num_features, generator=generator) - 0.5)
    return module


def step(module, x, dy):
    """y, dx, dweight, dbias of one training step; gradients of parameters added up over the processes."""
    x = x.clone().requires_grad_()
    module.zero_grad()
    y = module(x)
    y.backward(dy)
    gradients = [p.grad.clone() for p in (module.weight, module.bias)]
    if isinstance(module, SyncBatchNorm):
        for gradient in gradients:
            summed = gradient.float() if gradient.element_size() == 2 else gradient  # not every gloo has bfloat16
            dist.all_reduce(summed)
            gradient.copy_(summed)
    return (y.detach(), x.grad, *gradients)


class AgainstPyTorch(unittest.TestCase):
    def compare(self, shape, dtype, memory_format=None, weights=None, momentum=0.1):
        x, dy = whole(shape, sum(shape), dtype, memory_format)
        # PyTorch's kernels sum and normalize in the data's type: what is right is its answer in f64.
        right = parameters(syncbn.torch.BatchNormNd(shape[1], momentum=momentum)).double()
        ours = parameters(SyncBatchNorm(shape[1], momentum=momentum, dtype=torch.float64 if dtype == torch.float64 else torch.float32))
        for _ in range(2):
            wanted = step(right, x.double(), dy.double())
            got = step(ours, part(x, weights=weights), part(dy, weights=weights))
        tolerance = {"rtol": 1.6e-2, "atol": 1.6e-2} if dtype in (torch.bfloat16, torch.float16) else {}
        for name, value, right_value in zip(("y", "dx"), got, wanted):
            self.assertEqual(value.dtype, dtype)
            torch.testing.assert_close(value, part(right_value, weights=weights).to(dtype), msg=lambda m: f"{name}: {m}", **tolerance)
            self.assertEqual(value.stride(), part(x, weights=weights).stride())
        for value, right_value in zip(got[2:], wanted[2:]):
            torch.testing.assert_close(value.double(), right_value, rtol=1e-5, atol=1e-4)
        for name in ("running_mean", "running_var"):
            torch.testing.assert_close(getattr(ours, name).double(), getattr(right, name), rtol=1e-6, atol=1e-6)
        self.assertEqual(ours.num_batches_tracked.item(), 2)
        if weights is None:
            bits(f"{'x'.join(map(str, shape))}-{dtype}-{memory_format}", got[0].flatten(1), got[1].flatten(1))
        for name, value in zip(("dweight", "dbias"), got[2:]):
            self.assertEqual(len({str(v) for v in gathered(value.tolist())}), 1, name)

    def test_shapes(self):
        for shape in ((12, 5), (13, 5, 7), (8, 3, 5, 6), (4, 3, 2, 5, 3), (7, 1, 2), (6, 4, 1, 1)):
            for dtype in (torch.float32, torch.float64):
                with self.subTest(shape=shape, dtype=dtype):
                    self.compare(shape, dtype)

    def test_channels_last(self):
        self.compare((9, 6, 4, 5), torch.float32, torch.channels_last)
        self.compare((5, 6, 3, 4, 5), torch.float32, torch.channels_last_3d)

    def test_sixteen_bits(self):
        for dtype in (torch.bfloat16, torch.float16):
            self.compare((8, 6, 4, 5), dtype)
            self.compare((8, 6, 4, 5), dtype, torch.channels_last)

    def test_uneven_and_empty(self):
        self.compare((11, 4, 3, 2), torch.float32, weights=list(range(1, WORLD + 1)))
        if WORLD > 1:
            self.compare((11, 4, 3, 2), torch.float32, weights=[0] + [1] * (WORLD - 1))

    def test_cumulative_average(self):
        self.compare((8, 3, 5), torch.float32, momentum=None)

    def test_gradcheck(self):
        # All processes have the same samples, so each sees the derivative of the sum of all losses over one of them.
        torch.manual_seed(3)
        module = parameters(SyncBatchNorm(2, dtype=torch.float64))
        x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
        if WORLD == 1:
            self.assertTrue(torch.autograd.gradcheck(module, (x,)))

    def test_strided_input_and_expanded_gradient(self):
        x, _ = whole((8, 6, 5), 9, torch.float32)
        module = SyncBatchNorm(3)
        right = torch.nn.BatchNorm1d(3)
        mine = part(x)[:, ::2, :].clone().requires_grad_()
        strided = mine.as_strided((mine.shape[0], 3, 5), mine.stride())
        module(strided[:, :, ::2]).sum().backward()
        wanted = x[:, ::2, :].clone().requires_grad_()
        right(wanted[:, :, ::2]).sum().backward()
        torch.testing.assert_close(mine.grad, part(wanted.grad), atol=1e-5, rtol=1e-5)


class AsAModule(unittest.TestCase):
    def test_eval_and_frozen(self):
        x, dy = whole((8, 3, 4), 11, torch.float32)
        right = parameters(torch.nn.BatchNorm1d(3))
        right(x)
        module = SyncBatchNorm(3)
        module.load_state_dict(right.state_dict())
        module.eval(), right.eval()
        mine = part(x).requires_grad_()
        wanted = x.clone().requires_grad_()
        y, right_y = module(mine), right(wanted)
        y.backward(part(dy)), right_y.backward(dy)
        torch.testing.assert_close(y, part(right_y.detach()))
        torch.testing.assert_close(mine.grad, part(wanted.grad))
        self.assertEqual(module.num_batches_tracked.item(), 1)
        # Nobody else is needed: one process alone may evaluate.
        if RANK == 0:
            module(x)

    def test_without_parameters_or_statistics(self):
        x, _ = whole((8, 3, 4), 12, torch.float32)
        module = SyncBatchNorm(3, affine=False, track_running_stats=False)
        right = torch.nn.BatchNorm1d(3, affine=False, track_running_stats=False)
        torch.testing.assert_close(module(part(x)), part(right(x)))
        module.eval(), right.eval()
        torch.testing.assert_close(module(x), right(x))
        self.assertEqual(list(module.state_dict()), [])

    def test_state_dict_both_ways(self):
        for theirs in (torch.nn.BatchNorm2d(4), torch.nn.SyncBatchNorm(4)):
            ours = SyncBatchNorm(4)
            self.assertEqual(list(ours.state_dict()), list(theirs.state_dict()))
            parameters(theirs)
            ours.load_state_dict(theirs.state_dict())
            theirs.load_state_dict(ours.state_dict())
            torch.testing.assert_close(ours.weight, theirs.weight)

    def test_copies_and_files(self):
        module = parameters(SyncBatchNorm(3))
        x, _ = whole((4, 3), 13, torch.float32)
        module(part(x))
        again = copy.deepcopy(module)
        from_file = pickle.loads(pickle.dumps(module))
        buffer = io.BytesIO()
        torch.save(module.state_dict(), buffer)
        y = module(part(x))
        self.assertTrue(torch.equal(again(part(x)), y))
        self.assertTrue(torch.equal(from_file(part(x)), y))

    def test_a_group_that_does_not_go_into_files_is_told_of(self):
        own = dist.group.WORLD if WORLD > 1 else dist.new_group([0])
        saved = pickle.dumps(SyncBatchNorm(3, process_group=own))
        with self.assertWarnsRegex(UserWarning, "process group of its own, which does not go into files"):
            self.assertIsNone(pickle.loads(saved).process_group)

    def test_convert_and_revert_lose_nothing(self):
        class Mine(torch.nn.BatchNorm2d):
            pass

        shared = torch.nn.BatchNorm2d(3)
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), shared, torch.nn.Sequential(Mine(3, eps=1e-3, momentum=None), shared),
                                  torch.nn.BatchNorm1d(3, affine=False), torch.nn.SyncBatchNorm(3), torch.nn.ReLU())
        net[2].eval()
        net[1].weight.requires_grad_(False)
        before = {id(t): name for name, t in net.state_dict(keep_vars=True).items()}
        names = list(net.state_dict())
        flags = [m.training for m in net.modules()]
        converted = convert_sync_batchnorm(net)
        self.assertIs(converted, net)
        self.assertEqual(list(net.state_dict()), names)
        self.assertIs(net[1], net[2][1])
        self.assertEqual([type(m).__name__ for m in net], ["Conv2d", "SyncBatchNorm", "Sequential", "SyncBatchNorm", "SyncBatchNorm", "ReLU"])
        self.assertFalse(any(isinstance(m, torch.nn.SyncBatchNorm) for m in net.modules()))
        self.assertEqual(net[2][0].name, "2.0")
        self.assertEqual({id(t): name for name, t in net.state_dict(keep_vars=True).items()}, before)
        self.assertEqual([m.training for m in net.modules()], flags)
        self.assertFalse(net[1].weight.requires_grad)
        reverted = revert_sync_batchnorm(net)
        self.assertEqual([type(m) for m in reverted[2]], [Mine, torch.nn.BatchNorm2d])
        self.assertEqual((reverted[2][0].eps, reverted[2][0].momentum), (1e-3, None))
        self.assertIs(type(reverted[3]), torch.nn.BatchNorm1d)
        self.assertIs(type(reverted[4]), syncbn.torch.BatchNormNd)
        self.assertEqual({id(t): name for name, t in net.state_dict(keep_vars=True).items()}, before)
        self.assertEqual([m.training for m in net.modules()], flags)
        self.assertIsInstance(convert_sync_batchnorm(torch.nn.BatchNorm1d(2)), SyncBatchNorm)

    def test_a_module_of_two_names_is_converted_under_both(self):
        shared = torch.nn.BatchNorm1d(3)
        net = convert_sync_batchnorm(torch.nn.Sequential(torch.nn.Linear(3, 3), shared, torch.nn.ReLU(), shared))
        self.assertIsInstance(net[1], SyncBatchNorm)
        self.assertIs(net[1], net[3])
        revert_sync_batchnorm(net)
        self.assertIs(net[1], net[3])
        self.assertIs(type(net[1]), torch.nn.BatchNorm1d)

    def test_hooks_and_attributes_are_kept(self):
        calls = []
        old = torch.nn.BatchNorm1d(3)
        handle = old.register_forward_hook(lambda *_: calls.append("forward"))
        old.register_full_backward_hook(lambda *_: calls.append("backward"))
        old.note = "mine"
        x = torch.randn(12, 3, requires_grad=True)
        for change in (convert_sync_batchnorm, revert_sync_batchnorm):
            old = change(old)
            calls.clear()
            old(part(x)).sum().backward()
            self.assertEqual((calls, old.note), (["forward", "backward"], "mine"))
        handle.remove()
        old(part(x))
        self.assertEqual(calls.count("forward"), 1)

    def test_a_lazy_module_is_not_converted(self):
        with self.assertRaisesRegex(ValueError, "'1' is a LazyBatchNorm1d that has not seen its features"):
            convert_sync_batchnorm(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.LazyBatchNorm1d()))

    def test_process_groups(self):
        pairs = [dist.new_group([r for r in range(WORLD) if r // 2 == g]) for g in range((WORLD + 1) // 2)]
        module = SyncBatchNorm(1, process_group=pairs[RANK // 2])
        y = module(torch.full((1, 1, 2), float(RANK)))
        mates = [r for r in range(WORLD) if r // 2 == RANK // 2]
        mean = sum(mates) / len(mates)
        self.assertAlmostEqual(module.running_mean.item(), 0.1 * mean, places=6)
        self.assertEqual(torch.sign(y[0, 0, 0]).item(), (RANK > mean) - (RANK < mean))

    def test_process_groups_may_end_at_any_time(self):
        """The last owner of a group with operations under way is the module: its threads must find Python's lock free to end."""
        for _ in range(20):
            group = dist.new_group(list(range(WORLD)))
            module = SyncBatchNorm(1, process_group=group)
            module(torch.ones(2, 1))
            works = [dist.broadcast(torch.ones(1000), 0, group=group, async_op=True) for _ in range(20)]
            works[-1].wait()
            dist.destroy_process_group(group)
            del group, works, module

    def test_wrong_shape_is_everyones_error(self):
        for culprit in range(WORLD):
            module = SyncBatchNorm(3)
            module.name = "block.bn"
            module(torch.ones(2, 3))
            x = torch.ones(2, 5 if RANK == culprit else 3, 4)
            with self.assertRaisesRegex(ValueError, r"\[BatchNorm 'block.bn' forward\] x has 5 channels, num_features is 3") as caught:
                module(x)
            self.assertEqual(len(set(gathered(str(caught.exception).splitlines()[0]))), 1)
            self.assertEqual(module.num_batches_tracked.item(), 1)

    def test_wrong_type_is_everyones_error(self):
        for messages_alone in ("", "0"):
            os.environ["SYNCBN_SHARED_MEMORY"] = messages_alone
            module = SyncBatchNorm(3, process_group=dist.new_group(list(range(WORLD))))
            del os.environ["SYNCBN_SHARED_MEMORY"]
            for wrong, kind in ((torch.float64, ValueError), (torch.int32, ValueError), (torch.bfloat16, RuntimeError)):
                for culprit in range(WORLD):
                    if WORLD == 1 and wrong == torch.bfloat16:
                        continue  # taken
                    x = torch.ones(2, 3, dtype=wrong if RANK == culprit else torch.float32)
                    with self.assertRaises(kind) as caught:
                        module(x)
                    self.assertEqual(len(set(gathered(str(caught.exception).splitlines()[0]))), 1)
                module(torch.ones(2, 3))

    def test_wrong_arguments_of_one_process_alone(self):
        with self.assertRaisesRegex(ValueError, "less than 2 dimensions"):
            SyncBatchNorm(3)(torch.ones(3))
        with self.assertRaises(TypeError):
            SyncBatchNorm(3, process_group="gloo")(torch.ones(3, 3))

    def test_no_second_derivative(self):
        x = torch.randn(2, 3, requires_grad=True)
        with self.assertRaisesRegex(RuntimeError, "cannot be differentiated again"):
            torch.autograd.grad(SyncBatchNorm(3)(x).pow(2).sum(), x, create_graph=True)

    def test_sixteen_bit_parameters(self):
        module = SyncBatchNorm(3).to(torch.bfloat16)
        x, dy = whole((8, 3, 4), 14, torch.bfloat16)
        y, dx, dweight, _ = step(module, part(x), part(dy))
        self.assertEqual((y.dtype, dx.dtype, dweight.dtype, module.running_mean.dtype), (torch.bfloat16,) * 4)
        self.assertGreater(module.running_mean.float().min().item(), 0.2)

    def test_settings_may_change(self):
        module = SyncBatchNorm(2)
        x, _ = whole((6, 2), 15, torch.float32)
        module(part(x))
        module.momentum = 1.0
        module.eps = 1e-3
        module(part(x))
        torch.testing.assert_close(module.running_mean, x.mean(0))


class InTrainers(unittest.TestCase):
    def net(self, batch_norm):
        torch.manual_seed(1)
        return torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), batch_norm(4), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3), batch_norm(4),
                                   torch.nn.Flatten(), torch.nn.Linear(36, 3)).double()

    def train(self, net, x, target, steps=4):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        for _ in range(steps):
            optimizer.zero_grad()
            # DDP averages over processes; the whole batch's mean is the average of equal parts' means.
            F.cross_entropy(net(x), target).backward()
            optimizer.step()
        return {k: v for k, v in (net.module if isinstance(net, DistributedDataParallel) else net).state_dict().items()}

    def batch(self):
        x, _ = whole((12, 2, 7, 7), 21, torch.float64)
        return x, torch.arange(12) % 3

    def test_under_ddp(self):
        x, target = self.batch()
        wanted = self.train(self.net(torch.nn.BatchNorm2d), x, target)
        net = DistributedDataParallel(convert_sync_batchnorm(self.net(torch.nn.BatchNorm2d)))
        got = self.train(net, part(x), part(target))
        for name, value in wanted.items():
            torch.testing.assert_close(got[name], value, rtol=1e-8, atol=1e-10, msg=lambda m: f"{name}: {m}")
        if WORLD > 1:  # and local batch norm does not pass
            local = self.train(DistributedDataParallel(self.net(torch.nn.BatchNorm2d)), part(x), part(target))
            self.assertFalse(torch.allclose(local["6.weight"], wanted["6.weight"], rtol=1e-4, atol=1e-6))

    def test_activation_checkpointing(self):
        x, target = self.batch()

        class Checkpointed(torch.nn.Module):
            def __init__(self, net, reentrant):
                super().__init__()
                self.net, self.reentrant = net, reentrant

            def forward(self, x):
                x = x.clone().requires_grad_()
                for piece in (self.net[:3], self.net[3:5]):
                    x = checkpoint(piece, x, use_reentrant=self.reentrant)
                return self.net[5:](x)

        wanted = self.train(convert_sync_batchnorm(self.net(torch.nn.BatchNorm2d)), part(x), part(target))
        for reentrant in (False, True):
            net = Checkpointed(convert_sync_batchnorm(self.net(torch.nn.BatchNorm2d)), reentrant)
            self.train(net, part(x), part(target))
            for name, value in wanted.items():
                self.assertTrue(torch.equal(net.net.state_dict()[name], value), f"{name}, reentrant {reentrant}")
            self.assertEqual(net.net[1].num_batches_tracked.item(), 4)

    def test_importing_leaves_the_compiler_alone(self):
        program = "import sys, torch; before = set(sys.modules); import syncbn.torch; print('torch._dynamo' in set(sys.modules) - before)"
        result = subprocess.run([sys.executable, "-B", "-c", program], capture_output=True, text=True)
        self.assertEqual((result.stdout, result.stderr), ("False\n", ""))

    def test_compile_does_not_break_it(self):
        if not hasattr(torch, "compile"):
            self.skipTest("PyTorch 1 compiles nothing")
        net = convert_sync_batchnorm(self.net(torch.nn.BatchNorm2d))
        x, _ = self.batch()
        compiled = torch.compile(copy.deepcopy(net), backend="eager")
        self.assertTrue(torch.equal(compiled(part(x)), net(part(x))))

    def test_what_lies_around_it_is_compiled(self):
        if not hasattr(torch, "compile"):
            self.skipTest("PyTorch 1 compiles nothing")

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.convolution, self.norm, self.last = torch.nn.Conv2d(2, 4, 3), SyncBatchNorm(4), torch.nn.Conv2d(4, 4, 3)

            def forward(self, x):
                return self.last(torch.relu(self.norm(self.convolution(x)))) + 1

        graphs = []

        def keeps(graph, _):
            graphs.append(graph.code)
            return graph.forward

        net = Net().double()
        x, _ = self.batch()
        compiled = torch.compile(copy.deepcopy(net), backend=keeps)
        for _ in range(2):
            self.assertTrue(torch.equal(compiled(part(x)), net(part(x))))
        self.assertEqual(len(graphs), 2)  # in front of the normalization, and behind it
        self.assertFalse([code for code in graphs if "syncbn" in code])


if __name__ == "__main__":
    processes.main()
