#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""syncbn train --resume with colour images and with residual blocks, on as many ranks as before and on others."""
import os
import pathlib
import shutil
import signal
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from disturbed import DisturbedTest, ranks_of, start, steps_in, wait_for_steps  # noqa: E402
from tool import RANKS, run, value_after, write_cifar  # noqa: E402

STEPS = 18
OTHER_RANKS = (1, 2, 3)


class ImagesTest(DisturbedTest):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "cifar"
        self.data.mkdir()
        for number in range(1, 6):
            write_cifar(self.data, f"data_batch_{number}.bin", 7 + number)  # 50 images, 6 steps an epoch
        write_cifar(self.data, "test_batch.bin", 10)

    def command(self, network: str, *arguments: str) -> tuple[str, ...]:
        return ("train", "--data", str(self.data), "--network", network, "--batch", "8", "--epochs", "3", "--quiet", *arguments)

    def stop_in_the_middle(self, number: int, command: tuple[str, ...]) -> None:
        """Sends the signal to the last rank when some steps have been done; the training must not have ended by itself."""
        process = start(*command, "--out", str(self.out))
        wait_for_steps(process, self.out / "metrics.jsonl", 7)
        os.kill(ranks_of(process)[-1], number)
        self.finish(process)
        steps = steps_in(self.out / "metrics.jsonl")
        self.assertTrue(4 <= steps < STEPS, f"{steps} steps: not in the middle")

    def assert_goes_on(self, command: tuple[str, ...], whole: pathlib.Path, wanted_hash: str) -> None:
        """On this test's number of ranks and on others, each from a copy of what there is."""
        for ranks in OTHER_RANKS:
            copy = self.folder / f"run-{ranks}"
            shutil.copytree(self.out, copy)
            result = run(*command, "--out", str(copy), "--resume", ranks=ranks)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(value_after(result.stdout, "weights hash:"), wanted_hash, f"{ranks} ranks")
            self.assertEqual(self.records(copy), self.records(whole))
            shutil.rmtree(copy)

    def test_goes_on_with_the_bits_of_a_training_that_never_stopped(self):
        for network in "cnn", "resnet":
            command = self.command(network, "--arm", "sync", "--checkpoint-every", "4")
            whole = self.folder / "whole"
            result = run(*command, "--out", str(whole))
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn(f" {STEPS} steps in ", result.stdout)
            for number in signal.SIGTERM, signal.SIGKILL:
                with self.subTest(network=network, signal=number):
                    self.stop_in_the_middle(number, command)
                    self.assert_goes_on(command, whole, value_after(result.stdout, "weights hash:"))
                shutil.rmtree(self.out)
            shutil.rmtree(whole)

    def test_is_refused_on_other_ranks_where_they_differ(self):
        command = self.command("resnet", "--arm", "local", "--checkpoint-every", "4")
        self.stop_in_the_middle(signal.SIGTERM, command)
        before = {path.name: path.read_bytes() for path in self.out.iterdir()}
        result = run(*command, "--out", str(self.out), "--resume", ranks=RANKS + 1)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn(f"is of a training on {RANKS} ranks, this one has {RANKS + 1}, and with this arm that is another training",
                      result.stderr)
        self.assertEqual({path.name: path.read_bytes() for path in self.out.iterdir()}, before)

    def test_is_refused_with_other_images(self):
        command = self.command("cnn")
        self.assertEqual(run(*command, "--out", str(self.out)).returncode, 0)
        write_cifar(self.data, "test_batch.bin", 9)
        self.assert_refused(2, "is of a training on other data", *command, "--out", str(self.out), "--resume")


if __name__ == "__main__":
    unittest.main()
