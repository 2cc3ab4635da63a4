# SPDX-License-Identifier: MIT
"""syncbn bench: what it prints, what it refuses, and that it verifies before it times. No test looks at how long anything
takes."""
import json
import unittest

import tool
from tool import RANKS

QUICK = ["bench", "--seconds", "0"]
SHAPES = "5x6x4x3,1x3,2x5x1x7"  # uneven over the ranks, an empty rank, one sample in the batch
KEYS = ["who", "ranks", "threads", "reduction", "layout", "shape", "dtype", "pass", "fused", "median_ms", "min_ms",
        "limit_ms", "allreduce_ms", "isa"]
# Command line: (name, tensors moved forward, backward)
FUSED = {(): ("none", 3, 5), ("--residual",): ("residual", 4, 5), ("--activation", "relu"): ("relu", 3, 7),
         ("--residual", "--activation", "relu"): ("residual+relu", 4, 7)}

COMM = ["--comm", "--channels", "3,70"]
EXCHANGES = ["all_reduce", "all_gather", "automatic"]


def lines_of(outcome):
    return [json.loads(line) for line in outcome.stdout.splitlines()]


class BenchTest(unittest.TestCase):
    def run_bench(self, *arguments, **how):
        return tool.run([*QUICK, *arguments], launcher=RANKS > 1, **how)

    def test_one_line_for_each_case(self):
        outcome = self.run_bench("--json", "--shapes", SHAPES)
        self.assertEqual(outcome.code, 0, outcome)
        self.assertEqual(outcome.complaints, [], outcome)
        lines = lines_of(outcome)
        cases = [(line["shape"], line["layout"], line["pass"], line["reduction"]) for line in lines]
        self.assertEqual(cases, [(shape, layout, direction, reduction)
                                 for shape in ([5, 6, 4, 3], [1, 3, 1, 1], [2, 5, 1, 7])
                                 for layout in ("nchw", "nhwc")
                                 for direction in ("forward", "backward")
                                 for reduction in ("reproducible", "fast")])
        for line in lines:
            self.assertEqual(list(line)[:len(KEYS)], KEYS, line)
            self.assertEqual((line["who"], line["ranks"], line["threads"], line["dtype"]), ("syncbn", RANKS, 1, "f32"))
            self.assertEqual(line["fused"], "none")
            self.assertIn(line["isa"], ("scalar", "avx2", "avx512", "native"))
            self.assertEqual("ratio_to_fast" in line, line["reduction"] == "reproducible")
            self.assertTrue(0 < line["min_ms"] <= line["median_ms"], line)
            self.assertTrue(line["limit_ms"] > 0 and line["allreduce_ms"] >= 0, line)
            if RANKS == 1:
                self.assertEqual((line["allreduce_ms"], line["sync_overhead_ms"]), (0, 0))

    def test_bytes_are_those_of_the_global_batch(self):
        for dtype, size in (("f64", 8), ("f32", 4), ("bf16", 2), ("f16", 2)):
            outcome = self.run_bench("--json", "--shapes", "5x6x4x3", "--dtype", dtype, "--reduction", "fast")
            self.assertEqual(outcome.code, 0, outcome)
            self.assertEqual({(line["dtype"], line["pass"], line["bytes"]) for line in lines_of(outcome)},
                             {(dtype, "forward", 3 * 360 * size), (dtype, "backward", 5 * 360 * size)})

    def test_fused_layers_are_verified_and_timed(self):
        for arguments, (name, forward, backward) in FUSED.items():
            with self.subTest(name):
                outcome = self.run_bench("--json", "--shapes", SHAPES, *arguments)
                self.assertEqual(outcome.code, 0, outcome)
                self.assertEqual({(line["fused"], line["pass"], line["bytes"]) for line in lines_of(outcome)
                                  if line["shape"] == [5, 6, 4, 3]},
                                 {(name, "forward", forward * 360 * 4), (name, "backward", backward * 360 * 4)})
                spoiled = self.run_bench("--shapes", "5x6x4x3", "--spoil=1e-5", *arguments)
                self.assertEqual(spoiled.code, 1, spoiled)
                self.assertEqual(spoiled.stdout, "", spoiled)
                self.assertRegex("".join(spoiled.complaints), r"dx\[\d+\] is .* wanted ")

    def test_fused_layers_of_all_types(self):
        for dtype in ("f64", "bf16", "f16"):
            with self.subTest(dtype):
                outcome = self.run_bench("--shapes", "7x6x5x3,64x9", "--dtype", dtype, "--residual", "--activation", "relu")
                self.assertEqual(outcome.code, 0, outcome)
                self.assertIn(f"{dtype}, fused with residual+relu, ", outcome.stdout)

    def test_options_choose_the_cases(self):
        outcome = self.run_bench("--json", "--shapes", "4x3x2x2", "--layout", "nhwc", "--pass", "backward", "--dtype", "f64",
                                 "--reduction", "reproducible", "--threads", 2)
        self.assertEqual(outcome.code, 0, outcome)
        (line,) = lines_of(outcome)
        self.assertEqual([line[key] for key in ("layout", "pass", "dtype", "reduction", "threads")],
                         ["nhwc", "backward", "f64", "reproducible", 2])
        self.assertNotIn("ratio_to_fast", line)

    def test_the_instruction_set_is_the_one_that_ran(self):
        outcome = self.run_bench("--json", "--shapes", "4x3", environment={"SYNCBN_ISA": "scalar"})
        self.assertEqual({line["isa"] for line in lines_of(outcome)}, {"scalar"})

    def test_the_table_ends_with_the_summary(self):
        outcome = self.run_bench("--shapes", "2x3x7x7,2x3x2x2,4x3", "--layout", "nchw")
        self.assertEqual(outcome.code, 0, outcome)
        text = outcome.stdout
        self.assertRegex(text, rf"\A{RANKS} ranks?, 1 thread each, f32, kernels for \w+;")
        self.assertEqual(text.count("reproducible "), 6, text)
        self.assertEqual("allreduce" in text, RANKS > 1)
        summary = text[text.index("Reproducible over fast"):]
        for name in ("49 positions up", "2 to 48 positions", "2-D"):
            self.assertRegex(summary, rf"{name} +\d+\.\d+  \(2 cases, ")

    def test_wrong_results_are_not_timed(self):
        for dtype, spoil in (("f32", "1e-5"), ("f64", "1e-11"), ("bf16", "1e-2"), ("f16", "1e-3"), ("f32", "nan")):
            with self.subTest(dtype=dtype, spoil=spoil):
                outcome = self.run_bench("--shapes", "5x6x4x3", "--dtype", dtype, f"--spoil={spoil}")
                self.assertEqual(outcome.code, 1, outcome)
                self.assertEqual(outcome.stdout, "", outcome)
                self.assertEqual(len(outcome.complaints), 1, outcome)
                self.assertRegex(outcome.complaints[0], rf"5x6x4x3 nchw {dtype} reproducible: dx\[\d+\] is .* wanted ")

    def test_too_much_memory_is_refused_before_it_is_taken(self):
        outcome = self.run_bench("--shapes", "1000x1000x1000x1000")
        self.assertEqual(outcome.code, 4, outcome)
        self.assertEqual(len(outcome.complaints), 1, outcome)
        self.assertIn("needs 16000.0 GB of memory", outcome.complaints[0])

    def test_messages_have_the_size_that_their_channels_need(self):
        outcome = self.run_bench("--json", *COMM)
        self.assertEqual(outcome.code, 0, outcome)
        self.assertEqual(outcome.complaints, [], outcome)
        lines = [line for line in lines_of(outcome) if line["what"] == "message"]
        self.assertEqual([(line["who"], line["ranks"], line["channels"]) for line in lines],
                         [("syncbn", RANKS, 3), ("syncbn", RANKS, 70)])
        for line in lines:
            self.assertTrue(line["bytes"] >= 16 * line["channels"], line)  # two sums
            self.assertTrue(line["alone_us"] > 0 and line["merge_us"] >= 0 and line["round_us"] >= 0, line)
        fast = lines_of(self.run_bench("--json", "--reduction", "fast", *COMM))
        for line, smaller in zip(lines, fast):
            self.assertEqual((smaller["what"], smaller["channels"]), ("message", line["channels"]))
            self.assertLess(smaller["bytes"], line["bytes"])

    @unittest.skipIf(RANKS > 1, "several ranks have messages")
    def test_one_rank_says_what_it_cannot_measure(self):
        outcome = self.run_bench(*COMM)
        self.assertEqual(outcome.code, 0, outcome)
        self.assertIn("One rank sends nothing: synchronizing, overlap and latency are measured under mpirun", outcome.stdout)
        self.assertNotIn("LogGP", outcome.stdout)
        lines = lines_of(self.run_bench("--json", *COMM))
        self.assertEqual({line["what"] for line in lines}, {"message"})

    @unittest.skipIf(RANKS == 1, "one rank has no messages")
    def test_every_exchange_is_timed_both_ways_beside_an_allreduce(self):
        outcome = self.run_bench("--json", *COMM)
        self.assertEqual(outcome.code, 0, outcome)
        self.assertEqual(outcome.complaints, [], outcome)
        lines = lines_of(outcome)
        sync = [line for line in lines if line["what"] == "sync"]
        self.assertEqual([(line["channels"], line["pass"], line["exchange"]) for line in sync],
                         [(channels, direction, exchange) for channels in (3, 70) for direction in ("forward", "backward")
                          for exchange in EXCHANGES])
        bytes_of = {line["channels"]: line["bytes"] for line in lines if line["what"] == "message"}
        for line in sync:
            self.assertEqual((line["who"], line["ranks"], line["hosts"]), ("syncbn", RANKS, 1))
            self.assertEqual(line["bytes"], bytes_of[line["channels"]])
            self.assertGreater(line["allreduce_us"], 0, line)
            self.assertAlmostEqual(line["ratio"], line["median_us"] / line["allreduce_us"], msg=line)
        self.assertEqual([(line["channels"], line["exchange"]) for line in lines if line["what"] == "overlap"],
                         [(channels, exchange) for channels in (3, 70) for exchange in EXCHANGES])

    @unittest.skipIf(RANKS == 1, "one rank has no messages")
    def test_the_model_speaks_of_many_ranks(self):
        lines = lines_of(self.run_bench("--json", "--pass", "forward", *COMM))
        (link,) = [line for line in lines if line["what"] == "link"]
        self.assertTrue(link["latency_us"] >= 0 and link["overhead_us"] > 0, link)
        for algorithm in ("doubling", "tree", "linear"):
            times = {line["ranks"]: line["predicted_us"] for line in lines
                     if line["what"] == "model" and line["algorithm"] == algorithm and line["channels"] == 70}
            self.assertEqual((min(times), max(times)), (2, 100000))
            self.assertTrue(0 < times[2] < times[16] < times[100000], times)

    @unittest.skipIf(RANKS == 1, "one rank has no messages")
    def test_the_tables_of_messages(self):
        outcome = self.run_bench("--pass", "backward", *COMM)
        self.assertEqual(outcome.code, 0, outcome)
        text = outcome.stdout
        self.assertRegex(text, rf"\A{RANKS} ranks on 1 host, 1 thread each, reproducible f32, kernels for \w+;")
        self.assertRegex(text, r"\n +70 +\d+  backward  all_gather +-?\d+\.\d+ +\d+\.\d+ +-?\d+\.\d+\n")
        self.assertNotIn("forward   ", text)
        self.assertIn(f"LogGP, between ranks 0 and {RANKS - 1}: L ", text)
        self.assertRegex(text, r"\n  100000 \|")

    @unittest.skipIf(RANKS > 1, "how ranks agree on wrong usage is command_line_test.py's")
    def test_wrong_usage_exits_2(self):
        for arguments, words in ((["--shapes", "32x64x7"], ["'32x64x7' is not a shape", "NxCxHxW"]),
                                 (["--shapes", "32"], ["'32'"]),
                                 (["--shapes", "4x4,"], ["'' is not a shape"]),
                                 (["--shapes", "4x0"], ["'4x0'"]),
                                 (["--shapes", "4x-1"], ["'4x-1'"]),
                                 (["--shapes", "4x4x2x2f"], ["'4x4x2x2f'"]),
                                 (["--shapes", "99999999999999999999x1"], ["'99999999999999999999x1'"]),
                                 (["--shapes", "4294967296x4294967296"], ["too many elements"]),
                                 (["--layout", "chwn"], ["--layout", "nchw|nhwc|both"]),
                                 (["--pass", "sideways"], ["--pass", "forward|backward|both"]),
                                 (["--activation", "gelu"], ["--activation", "none|relu"]),
                                 (["--dtype", "f8"], ["--dtype", "f32|f64|bf16|f16"]),
                                 (["--reduction", "slow"], ["--reduction", "reproducible|fast|both"]),
                                 (["--threads", "0"], ["--threads"]),
                                 (["--seconds", "-1"], ["--seconds"]),
                                 (["--comm", "--shapes", "4x4"], ["--comm", "--shapes"]),
                                 (["--comm", "--residual"], ["--comm", "--residual"]),
                                 (["--comm", "--channels", "64,0"], ["'0' is not a number of channels"]),
                                 (["--comm", "--channels", "64,"], ["'' is not a number of channels"]),
                                 (["--comm", "--channels", "4x4"], ["'4x4' is not a number of channels"]),
                                 (["--comm", "--channels", "2097152"], ["wanted 1 to 2^20"]),
                                 (["--comm", "--channels", "64,64"], ["'64' is given twice"]),
                                 (["--channels", "64"], ["--channels", "--comm"]),
                                 (["--spoil", "x"], ["--spoil"])):
            with self.subTest(arguments):
                outcome = tool.run(["bench", *arguments], launcher=False)
                self.assertEqual(outcome.code, 2, outcome)
                self.assertEqual(outcome.stdout, "")
                self.assertEqual(len(outcome.complaints), 1, outcome)
                for word in words:
                    self.assertIn(word, outcome.complaints[0])


if __name__ == "__main__":
    unittest.main()
