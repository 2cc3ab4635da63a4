# SPDX-License-Identifier: MIT
"""Runs the syncbn program for the tests of this folder."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

RANKS = int(os.environ.get("SYNCBN_RANKS", "1"))


def run(*arguments: str, ranks: int = RANKS) -> subprocess.CompletedProcess:
    """stdout, stderr and exit code of `mpirun -n ranks syncbn arguments...`; one rank runs without mpirun."""
    launcher = [*os.environ["SYNCBN_MPIRUN"].split(), "-n", str(ranks)] if ranks > 1 else []
    command = [*launcher, os.environ["SYNCBN_TOOL"], *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def value_after(text: str, label: str) -> str:
    """The rest of the only line that begins with `label`."""
    lines = [line for line in text.splitlines() if line.startswith(label)]
    if len(lines) != 1:
        raise AssertionError(f"{len(lines)} lines begin with {label!r} in:\n{text}")
    return lines[0][len(label):].strip()


def write_cifar(folder: pathlib.Path, name: str, count: int) -> None:
    """A file of CIFAR-10: records of a label and 3 x 32 x 32 pixels, which the label decides."""
    records = [bytes([label % 10]) + bytes((label * 23 + at * at) % 256 for at in range(3072)) for label in range(count)]
    (folder / name).write_bytes(b"".join(records))


class ToolTest(unittest.TestCase):
    """Has a folder of its own, and knows how a refusal looks."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="syncbn_train_test."))
        self.addCleanup(shutil.rmtree, self.folder)

    def assert_refused(self, code: int, sentence: str, *arguments: str) -> None:
        """Exit code `code`, the sentence once on stderr, nothing on stdout."""
        result = run(*arguments)
        self.assertEqual(result.returncode, code, result.stderr)
        spoken = [line for line in result.stderr.splitlines() if line.startswith("syncbn ")]
        self.assertEqual(len(spoken), 1, result.stderr)
        self.assertIn(sentence, spoken[0])
        self.assertEqual(result.stdout, "")
