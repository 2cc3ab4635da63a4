#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""syncbn train and compare with a global batch of which some ranks get nothing: they say so."""
import json
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tool import RANKS, ToolTest, run, write_cifar  # noqa: E402

IDLE = {1: 0, 3: 1}[RANKS]  # the two samples are in units 0 and 4 of 8, the third rank has 6 and 7
SENTENCE = f"{IDLE} of {RANKS} ranks has no samples at a global batch of 2: a batch is cut into 8 units"


class IdleRanksTest(ToolTest):
    def setUp(self):
        super().setUp()
        for number in range(1, 6):
            write_cifar(self.folder, f"data_batch_{number}.bin", 10)
        write_cifar(self.folder, "test_batch.bin", 10)
        self.out = self.folder / "out"
        self.options = ("--data", str(self.folder), "--network", "mlp", "--epochs", "1", "--quiet", "--out", str(self.out))

    def assert_said(self, is_said: bool, text: str) -> None:
        self.assertEqual(SENTENCE in text, is_said, text)

    def test_train_says_so(self):
        for arm in "sync", "local", "group:2", "single":
            result = run("train", *self.options, "--overwrite", "--batch", "2", "--arm", arm)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assert_said(IDLE > 0 and arm != "single", result.stdout)
        self.assertNotIn("no samples", run("train", *self.options, "--overwrite", "--batch", "8").stdout)

    def test_compare_says_so(self):
        result = run("compare", *self.options, "--batch", "2", "--seeds", "1,")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assert_said(IDLE > 0, result.stdout)
        self.assert_said(IDLE > 0, (self.out / "report.html").read_text())
        shares = {share["arm"]: share for share in json.loads((self.out / "run.json").read_text())["shares"]}
        local = shares["local"]
        wanted = {1: (2, 2, 2, 2), 3: (0, 1, 1, 1)}[RANKS]  # 1, 1 and none
        self.assertEqual(tuple(local[f"{kind}_batch_{end}"] for kind in ("rank", "norm") for end in ("min", "max")), wanted)
        if IDLE:
            self.assertRegex(result.stdout, r"(?m)^local +0-1 +1 ")
            self.assertIn("With 0 to 1 samples per process", result.stdout)


if __name__ == "__main__":
    unittest.main()
