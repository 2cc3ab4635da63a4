#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How processes of one host exchange: through shared memory or by messages, the same bits; and what becomes of those whose
partners are late, gone, or elsewhere."""
import contextlib
import datetime
import glob
import os
import random
import subprocess
import sys
import tempfile
import time
import unittest

import processes
from processes import RANK, WORLD, part

if RANK >= 0:
    import torch
    import torch.distributed as dist

    from syncbn.torch import SyncBatchNorm


def setUpModule():
    processes.start()


def tearDownModule():
    processes.stop()


@contextlib.contextmanager
def shared_memory(is_wanted):
    os.environ["SYNCBN_SHARED_MEMORY"] = "1" if is_wanted else "0"
    try:
        yield
    finally:
        del os.environ["SYNCBN_SHARED_MEMORY"]


def new_group(**options):
    return dist.new_group(list(range(WORLD)), **options)


def shares_memory(module):
    """Of the group that the module's first training pass has made."""
    return next(iter(module._layers.values()))[0].group.shares_memory()


def run_step(module, channels):
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn(2 * WORLD + 1, channels, 3, generator=generator)
    dy = torch.randn(x.shape, generator=generator)
    own = part(x).requires_grad_()
    y = module(own)
    y.backward(part(dy))
    return y.detach(), own.grad, module.running_mean.clone(), module.running_var.clone()


class Exchange(unittest.TestCase):
    def test_shared_memory_and_messages_give_the_same_bits(self):
        for channels in (1, 64, 2048, 5000, 20000):  # from 5000 on more than one round through shared memory
            results = []
            for wanted in (True, False):
                with shared_memory(wanted):
                    module = SyncBatchNorm(channels, process_group=new_group())
                    results.append(run_step(module, channels))
                    self.assertEqual(shares_memory(module), wanted and WORLD > 1)
            for ours, theirs in zip(*results):
                self.assertTrue(torch.equal(ours, theirs), f"{channels} channels")

    def test_one_process_that_wants_messages_decides_for_all(self):
        for unwilling in range(WORLD):
            with shared_memory(RANK != unwilling):
                module = SyncBatchNorm(5, process_group=new_group())
                run_step(module, 5)
            self.assertFalse(shares_memory(module))

    def test_nothing_is_left_behind(self):
        groups = [new_group() for _ in range(3)]
        for group in groups:
            run_step(SyncBatchNorm(3, process_group=group), 3)
        dist.barrier()
        self.assertEqual(glob.glob("/dev/shm/syncbn.*"), [])

    def test_processes_of_any_speed_see_every_round(self):
        module = SyncBatchNorm(1, momentum=1.0, process_group=new_group())
        pace = random.Random(RANK)
        for step in range(300):
            if pace.random() < 0.1:
                time.sleep(pace.random() * 0.01)
            module(torch.tensor([[float(step)], [float(step + RANK)]]))
            self.assertEqual(module.running_mean.item(), step + (WORLD - 1) / 4)

    def test_a_fork_that_ends_breaks_nothing(self):
        module = SyncBatchNorm(2, process_group=new_group())
        run_step(module, 2)
        child = os.fork()
        if child == 0:
            del module  # with its group: the library forgets groups that nobody uses
            os._exit(0)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        run_step(module, 2)

    @unittest.skipIf(WORLD < 2, "nobody to wait for")
    def test_a_late_process_is_everyones_error(self):
        group = new_group(timeout=datetime.timedelta(seconds=3))
        module = SyncBatchNorm(1, process_group=group)
        module(torch.ones(2, 1))
        dist.barrier()
        before = module.running_mean.clone()
        if RANK == 1:
            time.sleep(6)
        begin = time.monotonic()
        with self.assertRaisesRegex(RuntimeError, rf"exchange failed: process 1 of {WORLD} has not come within 3 s"):
            module(torch.ones(2, 1))
        self.assertLess(time.monotonic() - begin, 5)
        with self.assertRaisesRegex(RuntimeError, f"cannot be used any more.*process 1 of {WORLD} has not come"):
            module(torch.ones(2, 1))
        self.assertTrue(torch.equal(module.running_mean, before))
        dist.barrier()

    @unittest.skipIf(WORLD > 1, "starts processes of its own")
    def test_a_process_that_ends_is_noticed_at_once(self):
        with tempfile.TemporaryDirectory() as folder:
            def start(rank):
                environment = {**os.environ, "SYNCBN_TEST_RANK": str(rank), "SYNCBN_TEST_WORLD": "2", "SYNCBN_TEST_DIES": "1",
                               "SYNCBN_TEST_STORE": os.path.join(folder, "store")}
                return subprocess.Popen([sys.executable, "-B", __file__], env=environment, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)

            survivor, victim = start(0), start(1)  # the victim is not waited for: it stays a zombie meanwhile
            try:
                output = survivor.communicate(timeout=processes.SECONDS)[0]
            finally:
                for process in (survivor, victim):
                    process.kill()
                    process.communicate()
            self.assertRegex(output, r"(?m)^after \d\.\d s: .*process 1 of 2 has ended")


def die_or_wait():
    """Process 1 ends in the middle of a training; process 0 says what it sees."""
    processes.start()
    module = SyncBatchNorm(1)
    for _ in range(3):
        module(torch.ones(2, 1))
    if RANK == 1:
        os.kill(os.getpid(), 9)
    begin = time.monotonic()
    try:
        module(torch.ones(2, 1))
    except RuntimeError as error:
        print(f"after {time.monotonic() - begin:.1f} s: {error}", flush=True)
    os._exit(0)  # the process group would wait for process 1


if __name__ == "__main__":
    if "SYNCBN_TEST_DIES" in os.environ:
        die_or_wait()
    processes.main()
