# SPDX-License-Identifier: MIT
"""syncbn verify: passes on every number of ranks, prints the worked example's nodes, and can fail."""
import json
import math
import re
import unittest

import tool


def lines_of(outcome):
    return [json.loads(line) for line in outcome.stdout.splitlines()]


def checks_of(outcome):
    """The lines of the derivation."""
    return [line for line in lines_of(outcome) if line["check"] != "same bits"]


def bits_of(outcome):
    """The lines of the ways to run a batch."""
    return [line for line in lines_of(outcome) if line["check"] == "same bits"]


class VerifyTest(unittest.TestCase):
    def test_passes_with_every_check_within_its_bound(self):
        outcome = tool.run(["verify", "--json", "--cases", 6, "--seed", 3])
        self.assertEqual(outcome.code, 0, outcome)
        checks = checks_of(outcome)
        self.assertEqual(len(checks), 7 * 5)
        for check in checks:
            self.assertTrue(check["ok"], check)
            self.assertTrue(0 <= check["difference"] <= check["bound"], check)
        self.assertEqual({check["check"] for check in checks},
                         {"staged backward", "finite differences of the formulas",
                          "finite differences of the layer, f64", "layer, f64", "layer, f32"})

    def test_prints_the_nodes_of_the_worked_example(self):
        """x = (1, 2, 3), (3, -2, 7): by hand, with two samples and s = sqrt(var + eps)."""
        eps = 0.5
        outcome = tool.run(["verify", "--cases", 0, "--eps", eps])
        self.assertEqual(outcome.code, 0, outcome)
        nodes = {}
        for line in outcome.stdout.splitlines():
            match = re.fullmatch(r"  ([a-z]+(?:\[[01]\])?) +(\S+) +(\S+) +(\S+)", line)
            if match and match[1] != "node":
                nodes[match[1]] = [float(value) for value in match.groups()[1:]]
        x, dy = [[1, 2, 3], [3, -2, 7]], [[1, -1, 2], [3, 1, 0.5]]
        gamma, beta = [1, 2, -1], [0, 1, 0.5]
        for j in range(3):
            mean = (x[0][j] + x[1][j]) / 2
            half = (x[1][j] - x[0][j]) / 2
            s = math.sqrt(half * half + eps)
            slope = (dy[1][j] - dy[0][j]) / 2  # dx[1] = gamma/s * slope * eps/(var + eps), by hand from the closed form
            by_hand = {
                "mean": mean, "variance": half * half, "xhat[0]": -half / s, "xhat[1]": half / s,
                "y[0]": beta[j] - gamma[j] * half / s, "y[1]": beta[j] + gamma[j] * half / s,
                "dxhat[0]": gamma[j] * dy[0][j], "dxhat[1]": gamma[j] * dy[1][j],
                "dvar": -gamma[j] * slope * half / s ** 3, "dmu": -gamma[j] * (dy[0][j] + dy[1][j]) / s,
                "dx[0]": -gamma[j] / s * slope * eps / (s * s), "dx[1]": gamma[j] / s * slope * eps / (s * s),
                "dgamma": 2 * slope * half / s, "dbeta": dy[0][j] + dy[1][j],
            }
            for name, value in by_hand.items():
                # Printed with 8 digits.
                self.assertAlmostEqual(nodes[name][j], value, delta=1e-7 * abs(value) + 1e-15, msg=name)
        self.assertIn(f"sample 1 on rank {tool.RANKS - 1} of {tool.RANKS}", outcome.stdout)

    def test_same_batches_for_the_same_seed(self):
        first, second, other = (tool.run(["verify", "--json", "--cases", 3, "--seed", seed]) for seed in (5, 5, 6))
        self.assertEqual(first.stdout, second.stdout)
        self.assertNotEqual(first.stdout, other.stdout)

    def test_a_wrong_dx_is_off_and_exits_1(self):
        for spoil in ("1e-6", "nan"):
            outcome = tool.run(["verify", "--json", "--cases", 2, f"--spoil-dx={spoil}"])
            self.assertEqual(outcome.code, 1, outcome)
            off = {check["check"] for check in lines_of(outcome) if not check["ok"]}
            self.assertEqual(off, {"layer, f64", "layer, f32"}, outcome)
        text = tool.run(["verify", "--cases", 0, "--spoil-dx", "1e-3"])
        self.assertEqual(text.code, 1, text)
        self.assertIn("OFF", text.stdout)

    def test_every_way_to_run_a_batch_gives_the_same_bits(self):
        outcome = tool.run(["verify", "--json", "--cases", 0])
        self.assertEqual(outcome.code, 0, outcome)
        lines = bits_of(outcome)
        self.assertEqual(len({line["hash"] for line in lines}), 1, outcome)
        self.assertTrue(all(line["ok"] for line in lines), outcome)
        self.assertEqual({line["ranks"] for line in lines}, set(range(1, tool.RANKS + 1)))
        self.assertEqual({line["threads"] for line in lines}, {1, 2})
        # The batches are of the seed alone: so is the hash, whatever the number of ranks.
        alone = bits_of(tool.run(["verify", "--json", "--cases", 0], ranks=1))
        self.assertEqual(alone[0]["hash"], lines[0]["hash"])
        other = bits_of(tool.run(["verify", "--json", "--cases", 0, "--seed", 2]))
        self.assertNotEqual(other[0]["hash"], lines[0]["hash"])

    def test_plain_sums_have_other_bits_and_exit_1(self):
        outcome = tool.run(["verify", "--json", "--cases", 1, "--reduction", "fast"])
        self.assertEqual(outcome.code, 1, outcome)
        self.assertTrue(all(check["ok"] for check in checks_of(outcome)), outcome)
        lines = bits_of(outcome)
        for line in lines:
            self.assertEqual(line["ok"], line["hash"] == lines[0]["hash"], line)
        self.assertFalse(all(line["ok"] for line in lines), outcome)
        text = tool.run(["verify", "--cases", 0, "--reduction", "fast"])
        self.assertEqual(text.code, 1, text)
        self.assertIn("gave OTHER bits (seed 1)", text.stdout)

    def test_wrong_usage_exits_2(self):
        for arguments in (["--cases", "-1"], ["--eps", "0"], ["--spoil-dx", "x"], ["--reduction", "exact"]):
            outcome = tool.run(["verify", *arguments])
            self.assertEqual(outcome.code, 2, outcome)
            self.assertEqual(len(outcome.complaints), 1, outcome)
            self.assertEqual(outcome.stdout, "")


if __name__ == "__main__":
    unittest.main()
