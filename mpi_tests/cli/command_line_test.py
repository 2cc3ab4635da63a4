# SPDX-License-Identifier: MIT
"""The command line itself: help, version, wrong usage, info; exit codes with and without the launcher."""
import json
import os
import socket
import unittest

import tool
from tool import RANKS

COMMANDS = ["bench", "compare", "info", "normalize", "report", "train", "verify"]

# arguments, words of the sentence
WRONG = [
    ([], ["a subcommand is needed", *COMMANDS]),
    (["normalise"], ["unknown subcommand 'normalise'", "did you mean normalize?"]),
    (["quarterly"], ["unknown subcommand 'quarterly'", *COMMANDS]),
    (["--versoin"], ["unknown option --versoin", "did you mean --version?"]),
    (["normalize", "--inptu", "x.npy"], ["unknown option --inptu", "did you mean --input?"]),
    (["normalize", "--input=x", "--out=y", "--shard=1"], ["unknown option --shard", "did you mean --shards?"]),
    (["normalize", "--input", "x", "--out", "y", "--residul", "z"], ["unknown option --residul", "did you mean --residual?"]),
    (["normalize", "--input", "x", "--out", "y", "--activation", "gelu"], ["--activation", "'gelu'", "none|relu"]),
    (["normalize", "--input", "x", "--out", "y", "--residual", ""], ["--residual", "empty"]),
    (["normalize", "--input", "x", "--out", "y", "z"], ["unexpected argument 'z'"]),
    (["normalize", "--out", "y"], ["--input is required"]),
    (["normalize", "--input", "x"], ["--out is required"]),
    (["normalize", "--input"], ["--input"]),
    (["normalize", "--input", "", "--out", "y"], ["--input", "empty"]),
    (["normalize", "--input", "x", "--out", "y", "--mode", "evil"], ["--mode", "'evil'", "train|eval|local|frozen"]),
    (["normalize", "--input", "x", "--out", "y", "--mode", "1"], ["--mode", "'1'"]),
    (["normalize", "--input", "x", "--out", "y", "--layout", "nchw"], ["--layout", "'nchw'", "channels-first"]),
    (["normalize", "--input", "x", "--out", "y", "--reduction", "slow"], ["--reduction", "'slow'"]),
    (["normalize", "--input", "x", "--out", "y", "--eps", "-1"], ["--eps", "'-1'", ">= 0"]),
    (["normalize", "--input", "x", "--out", "y", "--eps", "nan"], ["--eps", "'nan'"]),
    (["normalize", "--input", "x", "--out", "y", "--eps", "1e-5x"], ["--eps", "'1e-5x'"]),
    (["normalize", "--input", "x", "--out", "y", "--momentum", "1.5"], ["--momentum", "'1.5'", "[0, 1]"]),
    (["normalize", "--input", "x", "--out", "y", "--momentum", "None"], ["--momentum", "'None'"]),
    (["normalize", "--input", "x", "--out", "y", "--grad-output", "z", "--mode", "eval"], ["--grad-output", "frozen"]),
    (["normalize", "--input", "x", "--out", "y", "--out", "z"], ["--out is given 2 times"]),
    (["normalize", "--input", "x", "--out", "y", "--threads="], ["--threads needs a value, T (see"]),
    (["compare", "--arms"], ["--arms needs a value, LIST"]),
    (["train", "--seed", "1", "--seed", "2"], ["--seed is given 2 times, wanted once"]),
    (["train", "--epochs", "x"], ["--epochs has 'x', wanted N"]),
    (["verify", "--eps", "0"], ["--eps", "'0'", "from 1e-12 to 1e6"]),
    (["info", "--json", "--jsno"], ["unknown option --jsno", "did you mean --json?"]),
    (["info", "verify"], ["unexpected argument 'verify'"]),
]
WRONG_UNDER_MPIRUN = [WRONG[0], WRONG[1], WRONG[4]]


class CommandLine(unittest.TestCase):
    def run_tool(self, arguments, **how):
        return tool.run(arguments, launcher=RANKS > 1, **how)

    def test_version_is_said_once(self):
        outcome = self.run_tool(["--version"])
        self.assertEqual(outcome.code, 0, outcome)
        self.assertRegex(outcome.stdout, r"\Asyncbn \d+\.\d+\.\d+\n\Z")

    def test_help_of_all_commands_ends_with_examples(self):
        for command in [[], *([name] for name in COMMANDS)]:
            with self.subTest(command):
                outcome = self.run_tool([*command, "--help"])
                self.assertEqual(outcome.code, 0, outcome)
                self.assertEqual(outcome.stderr, "", outcome)
                self.assertEqual(outcome.stdout.count("Usage: "), 1, outcome)
                last_two = outcome.stdout.rstrip().splitlines()[-2:]
                self.assertTrue(all(" syncbn " in f" {line}" for line in last_two), last_two)
                self.assertTrue(any("mpirun -n " in line for line in last_two), last_two)

    @unittest.skipIf(RANKS > 1, "without the launcher")
    def test_help_does_not_touch_mpi(self):
        """MPI_Init could not find any of its parts."""
        broken = {"OMPI_MCA_btl": "absent", "OMPI_MCA_pml": "absent", "OPAL_PREFIX": "/nonexistent"}
        self.assertEqual(self.run_tool(["--help"], environment=broken).code, 0)
        self.assertEqual(self.run_tool(["normalise"], environment=broken).code, 2)

    def test_wrong_usage_gets_one_sentence_and_code_2(self):
        for arguments, words in WRONG if RANKS == 1 else WRONG_UNDER_MPIRUN:
            with self.subTest(arguments):
                outcome = self.run_tool(arguments)
                self.assertEqual(outcome.code, 2, outcome)
                self.assertEqual(outcome.stdout, "", outcome)
                self.assertEqual(len(outcome.complaints), 1, outcome)
                for word in [*words, "--help)"]:
                    self.assertIn(word, outcome.complaints[0])

    def test_info_describes_all_ranks(self):
        outcome = self.run_tool(["info", "--json"], environment={"OMP_NUM_THREADS": "1"})
        self.assertEqual(outcome.code, 0, outcome)
        self.assertEqual(len(outcome.complaints), RANKS > len(os.sched_getaffinity(0)), outcome)
        info = json.loads(outcome.stdout)
        self.assertEqual(info["ranks"], RANKS)
        self.assertEqual(len(info["per_rank"]), RANKS)
        self.assertEqual(sum(host["ranks"] for host in info["hosts"]), RANKS)
        self.assertTrue(all(rank["cores"] == len(os.sched_getaffinity(0)) for rank in info["per_rank"]), info)
        self.assertTrue(all(rank["omp_num_threads"] == rank["openmp_threads"] == 1 for rank in info["per_rank"]), info)
        self.assertEqual(info["thread_level_asked"], info["thread_level_provided"])
        text = self.run_tool(["info"])
        self.assertEqual(text.code, 0, text)
        for word in [info["version"], info["mpi_library"], info["compiler"], f"ranks             {RANKS}\n"]:
            self.assertIn(word, text.stdout)

    @unittest.skipIf(len(os.sched_getaffinity(0)) < os.cpu_count(), "is bound itself")
    def test_info_warns_of_more_threads_than_cores(self):
        cores = len(os.sched_getaffinity(0))
        outcome = self.run_tool(["info"], environment={"OMP_NUM_THREADS": str(cores + 1)})
        self.assertEqual(outcome.code, 0, outcome)
        self.assertEqual(len(outcome.complaints), 1, outcome)
        self.assertIn(f" may run {RANKS * (cores + 1)} OpenMP threads on the {cores} core", outcome.complaints[0])
        if RANKS > 1:
            self.assertIn(f"that they share, {cores + 1} each as OMP_NUM_THREADS says; ", outcome.complaints[0])
        for word in ("bound", "bind-to none"):
            self.assertNotIn(word, outcome.complaints[0])  # they are not
        self.assertEqual(outcome.stdout.count("\nnot bound         rank "), RANKS)

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "needs 2 cores")
    def test_info_warns_of_ranks_that_are_bound_to_fewer_cores_than_threads(self):
        core = min(os.sched_getaffinity(0))
        threads = len(os.sched_getaffinity(0)) + 1
        outcome = self.run_tool(["info"], shell_prefix=f"export OMP_NUM_THREADS={threads}; taskset -cp {core} $$ > /dev/null")
        self.assertEqual(len(outcome.complaints), 1, outcome)
        start = (f"rank 0 is bound to 1 core but may run {threads} OpenMP threads" if RANKS == 1 else
                 f"{RANKS} ranks on {socket.gethostname()} may run more OpenMP threads than the cores they are bound to "
                 f"(rank 0: {threads} OpenMP threads on the 1 core it has)")
        self.assertEqual(outcome.complaints[0], f"syncbn info: {start}; set OMP_NUM_THREADS=1")
        self.assertEqual(outcome.stdout.count("\nbound to          rank "), RANKS)

    def info_with_threads_not_set(self, then=":"):
        outcome = self.run_tool(["info", "--json"], shell_prefix=f"unset OMP_NUM_THREADS OMP_THREAD_LIMIT; {then}")
        self.assertEqual(outcome.code, 0, outcome)
        return outcome, json.loads(outcome.stdout)["per_rank"]

    def test_info_without_omp_num_threads_counts_a_thread_for_each_core(self):
        cores = len(os.sched_getaffinity(0))
        outcome, ranks = self.info_with_threads_not_set()
        for rank in ranks:
            self.assertEqual((rank["omp_num_threads"], rank["openmp_threads"]), (None, cores), outcome)
        self.assertEqual(len(outcome.complaints), RANKS > 1, outcome)
        if RANKS > 1:
            words = [f"the {RANKS} ranks on ", f" {RANKS * cores} OpenMP threads on the {cores} core"]
            words.append(", one for each core in every rank, as OMP_NUM_THREADS is not set; ")
            words.append(f"set OMP_NUM_THREADS={cores // RANKS}" if RANKS <= cores else "set OMP_NUM_THREADS=1 and start fewer ranks, ")
            for word in words:
                self.assertIn(word, outcome.complaints[0])

    def test_info_warns_of_ranks_that_are_bound_to_the_same_core(self):
        core = min(os.sched_getaffinity(0))
        outcome, ranks = self.info_with_threads_not_set(f"taskset -cp {core} $$ > /dev/null")
        for rank in ranks:
            self.assertEqual((rank["cores"], rank["openmp_threads"]), (1, 1), outcome)
        self.assertEqual(len(outcome.complaints), RANKS > 1, outcome)
        if RANKS > 1:
            self.assertIn(f" {RANKS} OpenMP threads on the 1 core ", outcome.complaints[0])

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2, "needs 2 cores")
    def test_info_is_content_with_a_core_for_each_of_two_ranks(self):
        first, second = sorted(os.sched_getaffinity(0))[:2]
        prefix = f"taskset -cp $(( ${{OMPI_COMM_WORLD_RANK:-${{PMI_RANK:-0}}}} ? {second} : {first} )) $$ > /dev/null"
        outcome = tool.run(["info"], ranks=2, shell_prefix=f"export OMP_NUM_THREADS=1; {prefix}")
        self.assertEqual((outcome.code, outcome.complaints), (0, []), outcome)

    @unittest.skipIf(RANKS > 1, "the launcher's stdout is a pipe")
    def test_full_stdout_is_a_failure(self):
        for arguments in [["info"], ["--help"]]:
            outcome = self.run_tool(arguments, shell_prefix="exec > /dev/full")
            self.assertEqual(outcome.code, 3, outcome)
            self.assertEqual(len(outcome.complaints), 1, outcome)


if __name__ == "__main__":
    unittest.main()
