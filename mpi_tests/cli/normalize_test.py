# SPDX-License-Identifier: MIT
"""syncbn normalize against the whole batch in NumPy: random shapes, splits, types, modes and settings."""
import tempfile
import unittest
from pathlib import Path

import tool
from tool import RANKS

import numpy as np

import batch_norm_oracle as oracle

SHAPES = [(7, 3), (16, 5, 6), (9, 4, 3, 5), (6, 2, 3, 2, 4), (1, 1), (2, 130), (40, 3, 17), (0, 3, 4), (5, 2, 0), (1, 3, 1, 2)]
MODES = ["train", "train", "train", "eval", "local", "frozen"]


class Case:
    """One random call: its arrays, its settings, its arguments."""

    def __init__(self, seed, folder):
        self.seed, self.folder = seed, Path(folder)
        random = self.random = np.random.default_rng(seed)
        self.dtype = np.dtype(random.choice(["f2", "f4", "f8"]))
        self.parameter_type = oracle.parameter_type(self.dtype)
        self.channels_last = bool(random.integers(2))
        shape = SHAPES[random.integers(len(SHAPES))]
        self.shape = (shape[0], *shape[2:], shape[1]) if self.channels_last else shape
        self.channels = shape[1]
        self.mode = MODES[random.integers(len(MODES))]
        self.shards = self._random_shards(shape[0])
        # -1e4 would make f2 all but constant, so that dx may be beyond its range.
        self.x = self._tensor(offset=random.choice([0.0, 3.0, -100.0 if self.dtype == "f2" else -1e4]))
        self.dy = self._tensor(offset=0.5) if self.mode != "eval" and random.integers(4) else None
        self.residual = self._tensor(offset=0.25) if random.integers(2) else None
        self.relu = bool(random.integers(2))
        self.per_rank_gradients = bool(random.integers(2)) and self.mode != "local"
        self.eps = float(random.choice([1e-5, 1e-3, 0.0]))
        self.momentum = [0.1, 0.0, 1.0, 0.37, None][random.integers(5)]
        self.unbiased = bool(random.integers(2))
        self.given = {name: values for name, values in self._parameters().items() if random.integers(4)}

    def _random_shards(self, rows):
        kind = self.random.integers(3)
        if kind == 0:  # near-even, the default
            return [rows // RANKS + (rank < rows % RANKS) for rank in range(RANKS)], []
        if kind == 1:  # everything on one rank
            shards = [0] * RANKS
            shards[self.random.integers(RANKS)] = rows
        else:
            cuts = np.sort(self.random.integers(0, rows + 1, RANKS - 1))
            shards = [int(n) for n in np.diff([0, *cuts, rows])]
        return shards, ["--shards", ",".join(map(str, shards))]

    def _tensor(self, offset):
        values = offset + self.random.standard_normal(self.shape) * self.random.uniform(0.1, 3)
        if self.channels > 1 and self.random.integers(3) == 0:  # a constant channel
            values[(..., 0) if self.channels_last else (slice(None), 0)] = offset
        return values.astype(self.dtype)

    def _parameters(self):
        def vector(low, high):
            return self.random.uniform(low, high, self.channels).astype(self.random.choice(["f2", "f4", "f8"]))

        return {"gamma": vector(-2, 2), "beta": vector(-2, 2),
                "running-mean": vector(-2, 2), "running-var": vector(0, 4)}

    def layer(self):
        """The layer as the program has it: parameters in the type of the data, or f4 if that is f2."""
        def parameter(name, default):
            return self.given.get(name, np.full(self.channels, default)).astype(self.parameter_type)

        return oracle.Layer(parameter("gamma", 1.0), parameter("beta", 0.0), parameter("running-mean", 0.0),
                            parameter("running-var", 1.0), self.eps, self.momentum, self.unbiased)

    def arguments(self):
        arguments = ["normalize", "--input", self._save("x", self.x), "--out", self.folder / "out",
                     "--layout", "channels-last" if self.channels_last else "channels-first", "--mode", self.mode,
                     "--eps", self.eps, "--momentum", "none" if self.momentum is None else self.momentum,
                     "--param-grad", "local" if self.per_rank_gradients else "global", *self.shards[1]]
        if self.dy is not None:
            arguments += ["--grad-output", self._save("dy", self.dy)]
        if self.residual is not None:
            arguments += ["--residual", self._save("residual", self.residual)]
        if self.relu or self.random.integers(2):  # none is the default
            arguments += ["--activation", "relu" if self.relu else "none"]
        if not self.unbiased:
            arguments.append("--biased-running-var")
        for name, values in self.given.items():
            arguments += ["--" + name, self._save(name, values)]
        return arguments

    def _save(self, name, values):
        np.save(self.folder / f"{name}.npy", values)
        return self.folder / f"{name}.npy"

    def expected(self, y):
        """By output file: (value, largest error). Whole-batch values, or one row per rank where the mode says so. `y` is
        what the program has written."""
        if self.dy is not None and self.relu:
            self.dy = oracle.behind_relu(self.dy, y)
        statistics = "running" if self.mode in ("eval", "frozen") else "batch"
        blocks = np.split(np.arange(self.shape[0]), np.cumsum(self.shards[0])[:-1])
        own = [self._evaluate(rows, statistics) for rows in blocks]
        if self.mode == "local":
            arrays = {name: self._joined(name, own) for name in own[0].value}
        else:
            whole = self._evaluate(np.arange(self.shape[0]), statistics)
            arrays = {name: (whole.value[name], whole.error[name]) for name in whole.value}
            if self.per_rank_gradients and self.dy is not None:
                arrays.update(self._own_gradients(blocks, whole))
        if self.dy is not None and self.residual is not None:
            arrays["dresidual"] = (self.dy, np.zeros(self.shape))
        return arrays

    def _evaluate(self, rows, statistics):
        dy = None if self.dy is None else self.dy[rows]
        residual = None if self.residual is None else self.residual[rows]
        return oracle.evaluate(self.layer(), self.x[rows], dy, self.channels_last, statistics, residual, self.relu)

    @staticmethod
    def _joined(name, own):
        join = np.concatenate if name in ("y", "dx") else np.stack
        return join([each.value[name] for each in own]), join([each.error[name] for each in own])

    def _own_gradients(self, blocks, whole):
        """A rank's sums with the statistics of the whole batch: what a frozen layer with those statistics has."""
        constants = self.layer()
        constants.running_mean, constants.running_var = whole.value["mean"], whole.value["var"]
        own = [oracle.evaluate(constants, self.x[rows], self.dy[rows], self.channels_last, "running") for rows in blocks]
        arrays = {}
        for name in ("dgamma", "dbeta"):
            # The statistics' error acts on a part of the batch at most as much as the whole batch's bound says.
            arrays[name] = (np.stack([each.value[name] for each in own]),
                            np.stack([each.error[name] + whole.error[name] for each in own]))
        return arrays


class Normalize(unittest.TestCase):
    def check(self, seed):
        with tempfile.TemporaryDirectory() as folder:
            case = Case(seed, folder)
            outcome = tool.run(case.arguments())
            where = f"\nseed {seed}, {RANKS} ranks, x {case.shape} {case.dtype}, shards {case.shards[0]}\n{outcome}"
            self.assertEqual(outcome.code, 0, where)
            out = Path(folder) / "out"
            expected = case.expected(np.load(out / "y.npy"))
            self.assertEqual({path.name for path in out.iterdir()}, {name + ".npy" for name in expected}, where)
            for name, (value, error) in expected.items():
                got = np.load(out / f"{name}.npy")
                self.check_array(name, got, value, error, case, where)

    def check_array(self, name, got, value, error, case, where):
        types = {"mean": np.dtype("f8"), "var": np.dtype("f8"), "y": case.dtype, "dx": case.dtype,
                 "dresidual": case.dtype}
        self.assertEqual(got.dtype, types.get(name, case.parameter_type), name + where)
        self.assertEqual(got.shape, value.shape, name + where)
        self.assertTrue(np.isfinite(got).all(), name + where)
        excess = np.abs(got.astype(oracle.Real) - value) - error
        if excess.size and excess.max() > 0:
            at = np.unravel_index(np.argmax(excess), excess.shape)
            self.fail(f"{name}{list(map(int, at))} is {got[at]!r}, wanted {value[at]!r} within {error[at]!r}{where}")

    def test_random_calls_match_the_whole_batch(self):
        for seed in range(1000 * RANKS, 1000 * RANKS + 30):
            with self.subTest(seed=seed):
                self.check(seed)

    def test_large_rows_are_sent_in_pieces(self):
        """More than one 64 MiB piece from the last rank."""
        with tempfile.TemporaryDirectory() as folder:
            x = np.random.default_rng(5).standard_normal((9, 4, 600, 1000)).astype("f4")
            np.save(f"{folder}/x.npy", x)
            shards = [0] * (RANKS - 1) + [9]
            outcome = tool.run(["normalize", "--input", f"{folder}/x.npy", "--out", f"{folder}/out", "--mode", "eval",
                                "--eps", 0, "--shards", ",".join(map(str, shards))])
            self.assertEqual(outcome.code, 0, outcome)
            self.assertTrue(np.array_equal(np.load(f"{folder}/out/y.npy"), x), "eval with mean 0 and var 1 is y = x")

    def frozen_gradients(self, folder, x, dy, ranks, shards, *arguments):
        np.save(f"{folder}/x.npy", x)
        np.save(f"{folder}/dy.npy", dy)
        outcome = tool.run(["normalize", "--input", f"{folder}/x.npy", "--grad-output", f"{folder}/dy.npy", "--mode",
                            "frozen", "--eps", 0, "--shards", ",".join(map(str, shards)), "--out", f"{folder}/out",
                            *arguments], ranks)
        self.assertEqual(outcome.code, 0, outcome)
        return {path.stem: np.load(path) for path in Path(folder, "out").iterdir()}

    def test_what_a_relu_holds_back_has_no_gradient(self):
        """By hand: x = 1, 2, 3 and z = 0, -9, 0 give y = 1, 0, 3, so that the 5 of dy = 4, 5, 6 does not count."""
        x, z, dy = (np.array(values, "f4").reshape(3, 1) for values in ([1, 2, 3], [0, -9, 0], [4, 5, 6]))
        shards = [3 // RANKS + (rank < 3 % RANKS) for rank in range(RANKS)]
        with tempfile.TemporaryDirectory() as folder:
            np.save(f"{folder}/z.npy", z)
            relu, residual = ["--activation", "relu"], ["--residual", f"{folder}/z.npy"]
            got = self.frozen_gradients(folder, x, dy, RANKS, shards, *relu, *residual)
            self.assertEqual([got[name].ravel().tolist() for name in ("y", "dx", "dresidual", "dgamma", "dbeta")],
                             [[1, 0, 3], [4, 0, 6], [4, 0, 6], [4 * 1 + 6 * 3], [4 + 6]])
        with tempfile.TemporaryDirectory() as folder:
            got = self.frozen_gradients(folder, x - 2, dy, RANKS, shards, *relu)
            self.assertNotIn("dresidual", got)
            self.assertEqual([got[name].ravel().tolist() for name in ("y", "dx", "dgamma", "dbeta")],
                             [[0, 0, 1], [0, 0, 6], [6], [6]])

    def test_gradients_of_a_frozen_layer_are_those_of_the_whole_batch(self):
        """Sums whose terms cancel, by hand: over samples, within a sample, and with what f8 cannot hold."""
        for dtype, big in (("f2", 2.0 ** 15), ("f4", 2.0 ** 24), ("f8", 2.0 ** 60)):
            x, dy = np.array([[1], [2], [3]], dtype), np.array([[big], [1], [-big]], dtype)
            for shape in ((3, 1), (1, 1, 3), (3, 1, 1)):
                rows = shape[0]
                shards = [[rows] + [0] * (RANKS - 1), [0] * (RANKS - 1) + [rows],
                          [rows // RANKS + (rank < rows % RANKS) for rank in range(RANKS)]]
                for split in shards:
                    with self.subTest(dtype=dtype, shape=shape, split=split), tempfile.TemporaryDirectory() as folder:
                        got = self.frozen_gradients(folder, x.reshape(shape), dy.reshape(shape), RANKS, split)
                        self.assertEqual(got["dbeta"], [1])
                        self.assertEqual(got["dgamma"], [oracle.parameter_type(np.dtype(dtype)).type(2 - 2 * big)])

    @unittest.skipIf(RANKS == 1, "compares with one rank")
    def test_gradients_of_a_frozen_layer_are_the_same_bits_for_every_split(self):
        random = np.random.default_rng(23)
        for dtype, decades in (("f2", 3), ("f4", 6), ("f8", 6)):
            x, dy = (random.standard_normal((29, 3, 7)) * 10.0 ** random.integers(-decades, decades + 1, (29, 1, 1))
                     for _ in range(2))
            with tempfile.TemporaryDirectory() as folder:
                whole = self.frozen_gradients(folder, x.astype(dtype), dy.astype(dtype), 1, [29], "--activation", "relu")
                for _ in range(3):
                    cuts = np.sort(random.integers(0, 30, RANKS - 1))
                    split = np.diff([0, *cuts, 29])
                    got = self.frozen_gradients(folder, x.astype(dtype), dy.astype(dtype), RANKS, split, "--activation",
                                                "relu")
                    for name in whole:
                        self.assertEqual(got[name].tobytes(), whole[name].tobytes(), (name, dtype, split))

    def test_groups_are_of_consecutive_ranks_and_know_nothing_of_each_other(self):
        """y and dx in a group's rows are what one process computes from these rows alone, to the byte."""
        random = np.random.default_rng(31)
        x, dy = (random.standard_normal((2 * RANKS + 3, 5, 3)).astype("f4") + 3 for _ in range(2))
        shards = [2 + (rank < 3) for rank in range(RANKS)]
        shards[-1] += len(x) - sum(shards)
        rows = np.split(np.arange(len(x)), np.cumsum(shards)[:-1])
        with tempfile.TemporaryDirectory() as folder:
            for size in sorted({1, 2, RANKS, RANKS + 4}):
                got = self.outputs(folder, x, dy, RANKS, "--shards", ",".join(map(str, shards)), "--group-size", size)
                for first in range(0, RANKS, size):
                    of_group = np.concatenate(rows[first:first + size])
                    alone = self.outputs(folder, x[of_group], dy[of_group], 1)
                    for name in ("y", "dx"):
                        self.assertEqual(got[name][of_group].tobytes(), alone[name].tobytes(), (name, size, first))
                    for rank in range(first, min(first + size, RANKS)):
                        for name in ("mean", "var", "running_mean", "dgamma"):
                            self.assertEqual(got[name][rank].tobytes(), alone[name].tobytes(), (name, size, rank))

    def outputs(self, folder, x, dy, ranks, *options):
        np.save(f"{folder}/x.npy", x)
        np.save(f"{folder}/dy.npy", dy)
        outcome = tool.run(["normalize", "--input", f"{folder}/x.npy", "--grad-output", f"{folder}/dy.npy", "--out",
                            f"{folder}/out", *options], ranks=ranks)
        self.assertEqual(outcome.code, 0, outcome)
        return {path.stem: np.load(path) for path in Path(folder, "out").iterdir()}

    def test_leftovers_of_a_killed_run_are_removed(self):
        """Rank 0 is killed while it writes: by the size limit of files, which stands for any SIGKILL."""
        if tool.RANKS > 3:
            self.skipTest("ending a killed job of many ranks takes mpirun half a minute on a busy machine")
        with tempfile.TemporaryDirectory() as folder:
            np.save(f"{folder}/x.npy", np.ones((6, 500000)))
            arguments = ["normalize", "--input", f"{folder}/x.npy", "--out", f"{folder}/out"]
            killed = tool.run(arguments, shell_prefix="trap - XFSZ; ulimit -c 0; ulimit -f 16384")
            self.assertNotEqual(killed.code, 0, killed)
            self.assertTrue([path for path in Path(folder, "out").iterdir() if path.name.startswith(".y.npy.")], killed)
            outcome = tool.run(arguments)
            self.assertEqual(outcome.code, 0, outcome)
            self.assertFalse([path for path in Path(folder, "out").iterdir() if path.name.startswith(".")])

    def test_results_replace_older_ones(self):
        with tempfile.TemporaryDirectory() as folder:
            np.save(f"{folder}/x.npy", np.eye(4))
            Path(folder, "y.npy").write_text("older")
            outcome = tool.run(["normalize", "--input", f"{folder}/x.npy", "--out", folder])
            self.assertEqual(outcome.code, 0, outcome)
            self.assertEqual(np.load(f"{folder}/y.npy").shape, (4, 4))
            self.assertFalse([path for path in Path(folder).iterdir() if path.name.startswith(".")], "temporary files")


if __name__ == "__main__":
    unittest.main()
