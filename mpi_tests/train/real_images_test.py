#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Handwritten digits (optdigits, 8 x 8): sync reaches 96 % of test accuracy in a few epochs.

The images are not part of the project: SYNCBN_DATA, or ../shared/data beside the source tree, has a folder optdigits with
IDX files; without it the test is skipped.
"""
import os
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tool import run, value_after  # noqa: E402

SOURCES = pathlib.Path(os.environ["SYNCBN_SOURCE_DIR"])
FOLDER = pathlib.Path(os.environ.get("SYNCBN_DATA", SOURCES.parent / "shared" / "data")) / "optdigits"


class RealImagesTest(unittest.TestCase):
    def check(self, network: str) -> None:
        arguments = ("train", "--arm", "sync", "--data", str(FOLDER), "--network", network, "--epochs", "5", "--quiet")
        result = run(*arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("3823 training and 1797 test images of 8 x 8 pixels", result.stdout)
        accuracy = float(value_after(result.stdout, "test accuracy:").removesuffix("%"))
        self.assertGreaterEqual(accuracy, 96.0)
        again = run(*arguments)
        self.assertEqual(value_after(result.stdout, "weights hash:"), value_after(again.stdout, "weights hash:"))

    def test_mlp(self):
        self.check("mlp")

    def test_cnn(self):
        self.check("cnn")

    def test_resnet(self):
        self.check("resnet")


if __name__ == "__main__":
    if not FOLDER.is_dir():
        print(f"skipped: there is no {FOLDER}")
        sys.exit(77)
    unittest.main()
