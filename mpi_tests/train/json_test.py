#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""syncbn train --json: one object, valid JSON, however the training ends."""
import json
import math
import os
import pathlib
import signal
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from disturbed import DisturbedTest, ranks_of, start, wait_for_steps  # noqa: E402
from tool import RANKS, run, value_after  # noqa: E402

SHORT = ("train", "--network", "mlp", "--batch", "300", "--epochs", "3", "--quiet")  # 10 steps an epoch


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def parse(text: str) -> dict:
    return json.loads(text, parse_constant=refuse_constant)


class JsonTest(DisturbedTest):
    def setUp(self):
        super().setUp()
        self.file = self.folder / "train.json"

    def record(self) -> dict:
        return parse(self.file.read_text())

    def test_has_the_whole_training(self):
        result = run(*SHORT, "--schedule", "multistep", "--milestones", "1,2", "--lr", "0.04", "--warmup", "4",
                     "--out", str(self.out), "--json", str(self.file))
        self.assertEqual(result.returncode, 0, result.stderr)
        record = self.record()
        run_json = parse((self.out / "run.json").read_text())
        for key in ("format", "state", "command", "command_line", "arguments", "data", "ranks", "shares", "hosts", "versions"):
            self.assertEqual(record[key], run_json[key])
        self.assertEqual((record["state"], record["ranks"]), ("finished", RANKS))
        self.assertEqual((record["arguments"]["network"], record["data"]["train_count"]), ("mlp", 3000))
        self.assertEqual({key: value for key, value in run_json["results"][0].items() if key in record["result"]}, record["result"])
        self.assertEqual(record["result"]["weights_hash"], value_after(result.stdout, "weights hash:"))
        self.assertEqual((record["result"]["steps"], record["result"]["diverged"]), (30, False))
        rates = [(epoch["lr_first_step"], epoch["lr_last_step"]) for epoch in record["epochs"]]
        for found, wanted in zip(rates, [(0.01, 0.04), (0.004, 0.004), (0.0004, 0.0004)], strict=True):
            self.assertTrue(all(math.isclose(*pair) for pair in zip(found, wanted)), rates)
        lines = [parse(line) for line in (self.out / "metrics.jsonl").read_text().splitlines()]
        for epoch, line in zip(record["epochs"], (line for line in lines if line["kind"] == "epoch"), strict=True):
            for key in ("epoch", "train_loss", "test_accuracy", "seconds", "step_seconds", "step_costs"):
                self.assertEqual(epoch[key], line[key])

    def test_goes_to_stdout_alone(self):
        for arguments in (("--json",), ("--json", "-"), ("--json", "--seed", "1")):
            result = run(*SHORT, *arguments)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(parse(result.stdout)["result"]["steps"], 30)

    def test_is_valid_after_divergence(self):
        result = run(*SHORT, "--lr", "1e38", "--json", str(self.file))
        self.assertEqual(result.returncode, 1, result.stderr)
        record = self.record()
        self.assertEqual((record["state"], record["result"]["diverged"]), ("finished", True))
        self.assertIsNone(record["epochs"][-1]["train_loss"])
        self.assertIsNone(record["result"]["test_accuracy"])

    def test_tells_of_a_stop_and_of_all_processes(self):
        long = ("train", "--network", "cnn", "--epochs", "3", "--batch", "50", "--quiet", "--out", str(self.out))
        process = start(*long, "--json", str(self.out / "mine.json"))
        wait_for_steps(process, self.out / "metrics.jsonl", 70)
        self.assertEqual(parse((self.out / "mine.json").read_text())["state"], "running")
        os.kill(ranks_of(process)[0], signal.SIGTERM)
        _, stderr = self.finish(process)
        self.assertEqual(process.returncode, 0, stderr)
        record = parse((self.out / "mine.json").read_text())
        self.assertEqual((record["state"], [epoch["epoch"] for epoch in record["epochs"]]),
                         ("stopped", list(range(1, 1 + record["steps_done"] // 60))))
        self.assertNotIn("result", record)
        self.assertEqual(run(*long, "--resume", "--json", str(self.file)).returncode, 0)
        epochs = self.record()["epochs"]
        self.assertEqual([epoch["epoch"] for epoch in epochs], [1, 2, 3])
        self.assertEqual(epochs[:len(record["epochs"])], record["epochs"])

    def test_tells_of_a_failure(self):
        self.out.mkdir()
        (self.out / ".checkpoint.syncbn.part").mkdir()  # where the checkpoint is to be written
        result = run(*SHORT, "--out", str(self.out), "--json", str(self.file))
        self.assertEqual(result.returncode, 3, result.stderr)
        record = self.record()
        self.assertEqual((record["state"], record["steps_done"], len(record["epochs"])), ("failed", 10, 1))
        self.assertIn(record["error"], result.stderr)

    def test_that_cannot_be_written_begins_nothing(self):
        for file in (self.folder / "nowhere" / "train.json", self.folder):
            self.assert_refused(3, "cannot write", *SHORT, "--out", str(self.out), "--json", str(file))
        for name in ("run.json", "metrics.jsonl"):
            self.assert_refused(2, "is a file of --out itself", *SHORT, "--out", str(self.out), "--json", f"{self.out}/x/../{name}")
        self.assertFalse(self.out.exists())


if __name__ == "__main__":
    unittest.main()
