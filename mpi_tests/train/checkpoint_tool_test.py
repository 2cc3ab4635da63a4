#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""syncbn train, killed and stopped, and gone on with --resume."""
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from disturbed import LIMIT_SECONDS, DisturbedTest, ranks_of, start, steps_in, wait_for_steps  # noqa: E402
from tool import RANKS, ToolTest, run, value_after  # noqa: E402

TRAIN = ("train", "--network", "cnn", "--epochs", "3", "--batch", "50", "--quiet")  # 180 steps


class CheckpointTest(DisturbedTest):
    def whole(self, *arguments: str) -> tuple[str, list[dict]]:
        """Hash and metrics of the training that nobody disturbs."""
        folder = self.folder / "whole"
        result = run(*TRAIN, *arguments, "--out", str(folder))
        self.assertEqual(result.returncode, 0, result.stderr)
        return value_after(result.stdout, "weights hash:"), self.records(folder)

    def assert_goes_on_to(self, whole: tuple[str, list[dict]], *arguments: str) -> None:
        result = run(*TRAIN, *arguments, "--out", str(self.out), "--resume")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(value_after(result.stdout, "weights hash:"), whole[0])
        self.assertEqual(self.records(self.out), whole[1])
        self.assertNotEqual(json.loads((self.out / "run.json").read_text())["state"], "running")

    def test_killed_at_any_moment_it_goes_on_from_the_last_checkpoint(self):
        moments = random.Random(RANKS)
        for arm in ("sync", "local"):
            options = ("--arm", arm, "--checkpoint-every", "7")
            whole = self.whole(*options)
            kills = 0
            for attempt in range(4):
                go_on = ("--resume",) if (self.out / "checkpoint.syncbn").exists() else ()
                have = steps_in(self.out / "metrics.jsonl") if go_on else 7
                process = start(*TRAIN, *options, "--out", str(self.out), *go_on)
                wait_for_steps(process, self.out / "metrics.jsonl", have + moments.randint(1, 30))
                time.sleep(moments.uniform(0, 0.01))
                if process.poll() is None:
                    try:
                        os.kill(moments.choice(ranks_of(process)), signal.SIGKILL)
                        kills += 1
                    except (IndexError, ProcessLookupError):
                        pass  # it ended in the meantime
                self.finish(process)
            self.assertGreater(kills, 0, "never killed: the training is too short for this test")
            with self.subTest(arm=arm, kills=kills):
                self.assert_goes_on_to(whole, *options)
            shutil.rmtree(self.out)
            shutil.rmtree(self.folder / "whole")

    def test_a_signal_to_one_rank_stops_all_with_a_checkpoint(self):
        whole = self.whole()
        for number in (signal.SIGTERM, signal.SIGINT):
            process = start(*TRAIN, "--out", str(self.out))
            wait_for_steps(process, self.out / "metrics.jsonl", 20)
            os.kill(ranks_of(process)[-1], number)
            stdout, stderr = self.finish(process)
            self.assertEqual(process.returncode, 0, stderr)
            self.assertRegex(stdout, r"^stopped after step \d+; the same command with --resume goes on from there\n$")
            self.assertEqual(json.loads((self.out / "run.json").read_text())["state"], "running")
            self.assert_goes_on_to(whole)
            shutil.rmtree(self.out)

    @unittest.skipIf(RANKS == 1, "without mpirun")
    def test_a_signal_to_mpirun_leaves_a_checkpoint(self):
        whole = self.whole()
        process = start(*TRAIN, "--out", str(self.out))
        wait_for_steps(process, self.out / "metrics.jsonl", 20)
        process.send_signal(signal.SIGTERM)
        self.finish(process)
        self.assertTrue((self.out / "checkpoint.syncbn").exists())
        self.assert_goes_on_to(whole)

    def test_without_a_folder_it_says_that_nothing_was_kept(self):
        process = start("train", "--network", "cnn", "--epochs", "1000", "--quiet")
        end = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < end and [self.catches(rank) for rank in ranks_of(process)] != [True] * RANKS:
            time.sleep(0.01)
        os.kill(ranks_of(process)[0], signal.SIGTERM)
        stdout, stderr = self.finish(process)
        self.assertEqual(process.returncode, 0, stderr)
        self.assertRegex(stdout, r"^stopped after step \d+; nothing was kept, because there is no --out\n$")

    @unittest.skipIf(RANKS > 1, "one process is enough")
    def test_a_second_signal_ends_it_at_once(self):
        process = start("train", "--network", "cnn", "--epochs", "1000", "--quiet", "--out", str(self.out))
        wait_for_steps(process, self.out / "metrics.jsonl", 5)
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):  # both come at the same moment
            process.send_signal(number)
        self.finish(process)
        self.assertIn(process.returncode, (-signal.SIGTERM, -signal.SIGINT))

    @staticmethod
    def catches(pid: int) -> bool:
        """Whether the process is syncbn, no longer mpirun's fork, and has a handler for SIGTERM."""
        try:
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return False
        is_tool = value_after(status, "Name:") == pathlib.Path(os.environ["SYNCBN_TOOL"]).name
        return is_tool and int(value_after(status, "SigCgt:"), 16) >> (signal.SIGTERM - 1) & 1 == 1


class RefusalTest(ToolTest):
    def setUp(self):
        super().setUp()
        self.out = self.folder / "run"
        bare = ("train", "--network", "mlp", "--batch", "300", "--quiet", "--out", str(self.out))
        self.options = (*bare, "--epochs", "1")
        self.untrained = (*bare, "--epochs", "0")

    def test_of_arguments(self):
        self.assert_refused(2, "--checkpoint-every is 0", *self.options, "--checkpoint-every", "0")
        self.assert_refused(2, "needs a folder: --out", "train", "--checkpoint-every", "3")
        self.assert_refused(2, "--resume needs the folder", "train", "--resume")
        self.assert_refused(3, "to resume from", *self.options, "--resume")
        self.assertFalse(self.out.exists())

    def test_of_a_checkpoint_leaves_everything_as_it_was(self):
        first = run(*self.options)
        self.assertEqual(first.returncode, 0, first.stderr)
        before = {path.name: path.read_bytes() for path in self.out.iterdir()}
        self.assertEqual(sorted(before), ["checkpoint.syncbn", "metrics.jsonl", "run.json"])
        self.assert_refused(3, "lr 0.05, this one has 0.1", *self.options, "--resume", "--lr", "0.1")
        self.assert_refused(3, "shard iid, this one has by-class", *self.options, "--resume", "--shard", "by-class")
        self.assert_refused(3, "arm sync, this one has local", *self.options, "--resume", "--arm", "local")
        self.assertEqual({path.name: path.read_bytes() for path in self.out.iterdir()}, before)
        checkpoint = self.out / "checkpoint.syncbn"
        checkpoint.write_bytes(before["checkpoint.syncbn"][:-1])
        self.assert_refused(3, "is cut off", *self.options, "--resume")
        checkpoint.write_bytes(before["checkpoint.syncbn"])
        again = run(*self.options, "--resume")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(value_after(again.stdout, "weights hash:"), value_after(first.stdout, "weights hash:"))

    def test_a_new_run_removes_the_old_checkpoint(self):
        self.assertEqual(run(*self.options).returncode, 0)
        self.assertEqual(run(*self.untrained).returncode, 0)
        self.assertFalse((self.out / "checkpoint.syncbn").exists())


if __name__ == "__main__":
    unittest.main()
