#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""syncbn train, killed and stopped, and gone on with --resume."""
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
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
        record = self.run_record()
        self.assertEqual(record["state"], "finished")
        sessions = record["sessions"]
        self.assertEqual(sessions[-1], {key: record[key] for key in ("started", "command_line", "ranks")}
                         | {"first_step": sessions[-1]["first_step"]})
        first_steps = [session["first_step"] for session in sessions]
        self.assertTrue(first_steps[0] == 1 < first_steps[-1] and first_steps == sorted(first_steps), first_steps)
        epochs = [line["step_costs"] for line in self.lines() if line["kind"] == "epoch"]
        self.assertEqual(len(epochs), 3)  # of all processes together
        for name, cost in record["results"][0]["step_costs"].items():
            self.assertEqual(cost, statistics.median(epoch[name] for epoch in epochs), name)

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in (self.out / "metrics.jsonl").read_text().splitlines()]

    def run_record(self) -> dict:
        return json.loads((self.out / "run.json").read_text())

    def test_killed_at_any_moment_it_goes_on_from_the_last_checkpoint(self):
        moments = random.Random(RANKS)
        for arm in ("sync", "local"):
            options = ("--arm", arm, "--checkpoint-every", "7")
            whole = self.whole(*options)
            kills = 0
            for attempt in range(4):
                have = steps_in(self.out / "metrics.jsonl") if (self.out / "checkpoint.syncbn").exists() else 7
                process = start(*TRAIN, *options, "--out", str(self.out), "--resume")
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
            wait_for_steps(process, self.out / "metrics.jsonl", 70)  # in the second epoch
            self.assertEqual(self.run_record()["state"], "running")
            os.kill(ranks_of(process)[-1], number)
            stdout, stderr = self.finish(process)
            self.assertEqual(process.returncode, 0, stderr)
            self.assertRegex(stdout, r"^stopped after step \d+; the same command with --resume goes on from there\n$")
            record = self.run_record()
            self.assertEqual((record["state"], record["steps_done"]), ("stopped", int(stdout.split()[3].rstrip(";"))))
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

    def test_a_failure_stands_in_run_json(self):
        self.out.mkdir()
        (self.out / ".checkpoint.syncbn.part").mkdir()  # where the first checkpoint is to be written
        result = run(*TRAIN, "--checkpoint-every", "7", "--out", str(self.out))
        self.assertEqual(result.returncode, 3, result.stderr)
        record = self.run_record()
        self.assertEqual((record["state"], record["steps_done"]), ("failed", 7))
        self.assertIn(f"cannot write {self.out}/checkpoint.syncbn: Is a directory", record["error"])
        self.assertIn(record["error"], result.stderr)

    @unittest.skipIf(RANKS == 1, "needs a rank that others miss")
    def test_a_missing_rank_stands_in_run_json(self):
        os.environ["SYNCBN_DEADLINE_SECONDS"] = "2"
        self.addCleanup(os.environ.pop, "SYNCBN_DEADLINE_SECONDS")
        process = start("train", "--network", "cnn", "--epochs", "1000", "--quiet", "--out", str(self.out))
        wait_for_steps(process, self.out / "metrics.jsonl", 2)
        missing = ranks_of(process)[1]
        os.kill(missing, signal.SIGSTOP)
        try:
            self.finish(process)
        finally:
            try:
                os.kill(missing, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.assertEqual(process.returncode, 4)
        record = self.run_record()
        self.assertEqual(record["state"], "failed")
        self.assertIn(f"rank 1 of {RANKS} is missing", record["error"])

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
    @unittest.skipIf("TSAN_OPTIONS" in os.environ, "ThreadSanitizer hands signals on later, and not one whose handler has gone by then")
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
        self.assert_refused(2, "--overwrite needs the folder", "train", "--overwrite")
        self.assert_refused(2, "--resume excludes --overwrite", *self.options, "--overwrite", "--resume")
        self.assertFalse(self.out.exists())

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.out.iterdir()}

    def test_of_a_checkpoint_leaves_everything_as_it_was(self):
        first = run(*self.options)
        self.assertEqual(first.returncode, 0, first.stderr)
        before = self.contents()
        self.assertEqual(sorted(before), ["checkpoint.syncbn", "metrics.jsonl", "run.json"])
        self.assert_refused(2, "lr 0.05, this one has 0.1", *self.options, "--resume", "--lr", "0.1")
        self.assert_refused(2, "shard iid, this one has by-class", *self.options, "--resume", "--shard", "by-class")
        self.assert_refused(2, "arm sync, this one has local", *self.options, "--resume", "--arm", "local")
        self.assertEqual(self.contents(), before)
        checkpoint = self.out / "checkpoint.syncbn"
        checkpoint.write_bytes(before["checkpoint.syncbn"][:-1])
        self.assert_refused(3, "is cut off", *self.options, "--resume")
        checkpoint.write_bytes(before["checkpoint.syncbn"])
        again = run(*self.options, "--resume")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual(value_after(again.stdout, "weights hash:"), value_after(first.stdout, "weights hash:"))

    def test_of_a_folder_with_an_earlier_run(self):
        self.assertEqual(run(*self.options).returncode, 0)
        before = self.contents()
        for options in (self.options, (*self.options, "--seed", "2"), self.untrained):
            self.assert_refused(2, "run has an earlier run (metrics.jsonl, checkpoint.syncbn, run.json): go on with it "
                                   "(--resume), replace it (--overwrite), or name another folder (--out)", *options)
        self.assertEqual(self.contents(), before)
        self.assertEqual(run(*self.untrained, "--overwrite").returncode, 0)
        self.assertEqual(sorted(self.contents()), ["metrics.jsonl", "run.json"])  # the old checkpoint is gone

    def test_of_a_run_that_has_no_checkpoint_and_is_another(self):
        self.out.mkdir()
        for name in ("summary.csv", "run.json"):
            for text in ("x", "[]", "{}", '{"command": "compare", "arguments": {}}'):
                (self.out / name).write_text(text)
                self.assert_refused(2, f"run has no checkpoint to resume from, but another run ({name})", *self.options,
                                    "--resume")
                self.assertEqual(self.contents(), {name: text.encode()})
            (self.out / name).unlink()
        self.assertEqual(run(*self.untrained).returncode, 0)
        self.assert_refused(2, "but another run (metrics.jsonl, run.json)", *self.untrained, "--resume", "--lr", "0.1")
        self.assertEqual(run(*self.untrained, "--resume").returncode, 0)
        (self.out / "checkpoint.syncbn").unlink(missing_ok=True)
        self.assertEqual(run(*self.untrained, "--resume", "--threads", "2").returncode, 0)  # the same bits, so the same run

    def begin_with_resume(self) -> str:
        """The hash of a training that says that it begins."""
        result = run(*self.options, "--resume")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual([line for line in result.stderr.splitlines() if line.startswith("syncbn ")],
                         [f"syncbn train: {self.out} has no checkpoint to resume from, so the training begins at its first step"])
        return value_after(result.stdout, "weights hash:")

    def test_resume_begins_where_there_is_nothing_to_go_on_from(self):
        hashes = {self.begin_with_resume()}  # without a folder
        (self.out / "checkpoint.syncbn").unlink()
        hashes.add(self.begin_with_resume())  # with this training's records, which ended before its first checkpoint
        for path in self.out.iterdir():
            path.unlink()
        (self.out / "mine.txt").write_text("x")
        (self.out / "metrics.jsonl").write_text("")
        hashes.add(self.begin_with_resume())  # with files that tell of no run
        self.assertEqual((self.out / "mine.txt").read_text(), "x")
        self.assertEqual(len(hashes), 1)


if __name__ == "__main__":
    unittest.main()
