# SPDX-License-Identifier: MIT
"""4 hosts of 2 ranks each: the program sees them as what they are, and computes the bytes of one process."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "cli"))
import hosts  # noqa: E402
from tool import TOOL  # noqa: E402

import numpy  # noqa: E402

HOSTS = 4
RANKS_PER_HOST = 2
SHARDS = "3,0,7,1,2,5,0,1"  # a rank without rows on two of the hosts
RESULTS = ["dbeta", "dgamma", "dx", "mean", "running_mean", "running_var", "var", "y"]


class Hosts(unittest.TestCase):
    def run_on_hosts(self, arguments, **how):
        done = hosts.run([TOOL, *arguments], hosts=HOSTS, ranks_per_host=RANKS_PER_HOST, **how)
        self.assertEqual(done.returncode, 0, f"{arguments}\n{done.stdout}{done.stderr}")
        return done.stdout

    def test_info_sees_four_hosts_of_two_ranks(self):
        info = json.loads(self.run_on_hosts(["info", "--json"]))
        wanted = [{"name": f"node{host}", "ranks": RANKS_PER_HOST} for host in range(1, HOSTS + 1)]
        self.assertEqual(info["hosts"], wanted)
        self.assertEqual([rank["host"] for rank in info["per_rank"]],
                         [host["name"] for host in wanted for _ in range(RANKS_PER_HOST)])


class SameBytes(Hosts):
    """`syncbn normalize`, forward and backward, against one process without mpirun."""

    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = pathlib.Path(cls.temporary.name)
        draw = numpy.random.default_rng(20)
        for name in ("x", "dy"):
            # A mean far from 0 and a spread that differs between samples: plain sums depend on their order.
            values = 100.0 + draw.normal(0.0, 1.0, (19, 37, 5, 7)) * numpy.exp(draw.normal(0.0, 3.0, (19, 1, 1, 1)))
            numpy.save(cls.folder / f"{name}.npy", values.astype("f4"))

    def arguments(self, out, options):
        return ["normalize", "--input", self.folder / "x.npy", "--grad-output", self.folder / "dy.npy", "--out",
                self.folder / out, *options]

    def results(self, out):
        """The bytes of all files of an output folder, by name."""
        found = {path.stem: path.read_bytes() for path in (self.folder / out).iterdir()}
        self.assertEqual(sorted(found), RESULTS)
        return found

    def alone(self, *options):
        done = subprocess.run([TOOL, *self.arguments("alone", options)], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.results("alone")

    def on_hosts(self, *options, hosts_options=()):
        self.run_on_hosts(self.arguments("hosts", ["--shards", SHARDS, *options]), options=hosts_options)
        return self.results("hosts")

    def differing(self, some, others):
        return [name for name in RESULTS if some[name] != others[name]]

    def test_every_byte_is_that_of_one_process(self):
        self.assertEqual(self.differing(self.on_hosts(), self.alone()), [])

    def test_messages_that_arrive_late_change_nothing(self):
        options = ("-d", "1", "-r", "100mbit")
        reason = hosts.reason_against(options)
        if reason:
            self.skipTest(reason)
        self.assertEqual(self.differing(self.on_hosts(hosts_options=options), self.alone()), [])

    def test_comparison_can_fail(self):
        """Plain sums in double do depend on the split."""
        fast = ("--reduction", "fast")
        self.assertNotEqual(self.differing(self.on_hosts(*fast), self.alone(*fast)), [])

    def test_ranks_of_a_host_are_a_group(self):
        """y and dx in a host's rows are what one process computes from these rows alone."""
        self.on_hosts("--group-size", "node")
        together = {name: numpy.load(self.folder / "hosts" / f"{name}.npy") for name in ("y", "dx")}
        ends = numpy.cumsum([int(rows) for rows in SHARDS.split(",")])[RANKS_PER_HOST - 1::RANKS_PER_HOST]
        for begin, end in zip([0, *ends], ends):
            for name in ("x", "dy"):
                numpy.save(self.folder / f"part_{name}.npy", numpy.load(self.folder / f"{name}.npy")[begin:end])
            done = subprocess.run([TOOL, "normalize", "--input", self.folder / "part_x.npy", "--grad-output",
                                   self.folder / "part_dy.npy", "--out", self.folder / "part"],
                                  capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            for name, values in together.items():
                part = numpy.load(self.folder / "part" / f"{name}.npy")
                self.assertEqual(values[begin:end].tobytes(), part.tobytes(), (name, begin))



if __name__ == "__main__":
    hosts.skip_unless_possible()
    unittest.main()
