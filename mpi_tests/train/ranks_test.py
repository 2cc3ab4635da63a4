#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""syncbn compare --ranks: the same global batch on several numbers of ranks, within one comparison."""
import contextlib
import csv
import json
import os
import pathlib
import shutil
import signal
import sys
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from disturbed import DisturbedTest, ranks_of, start, wait_for_steps  # noqa: E402
from tool import RANKS, run  # noqa: E402

COUNTS = {1: [1], 2: [1, 2], 3: [3, 1, 2], 4: [1, 2, 4]}[RANKS]
LIST = ",".join(map(str, COUNTS))
SHORT = ("--network", "mlp", "--epochs", "1", "--batch", "300", "--quiet")
LONG = ("--network", "mlp", "--batch", "200", "--seeds", "1", "--quiet")


class RanksTest(DisturbedTest):
    def compare(self, *arguments: str):
        result = run("compare", *SHORT, "--out", str(self.out), *arguments)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout

    def rows(self) -> list[dict[str, str]]:
        with (self.out / "summary.csv").open() as file:
            return list(csv.DictReader(file))

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in (self.out / "metrics.jsonl").read_text().splitlines()]

    def assert_report_remakes_the_page(self) -> str:
        before = (self.out / "report.html").read_text()
        result = run("report", str(self.out), ranks=1)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual((self.out / "report.html").read_text(), before)
        return before

    def test_sync_has_one_hash_on_all_numbers(self):
        stdout = self.compare("--ranks", LIST, "--seeds", "2")
        rows = self.rows()
        single = str(1 if len(COUNTS) > 1 else RANKS)
        arms = [("sync", str(count)) for count in COUNTS] + [("local", str(count)) for count in COUNTS]
        for seed in "12":
            of_seed = [row for row in rows if row["seed"] == seed]
            self.assertEqual(sorted((row["arm"], row["ranks"]) for row in of_seed), sorted(arms + [("single", single)]))
            hashes = {row["weights_hash"] for row in of_seed if row["arm"] != "local"}
            self.assertEqual(len(hashes), 1, of_seed)
            for row in of_seed:
                ranks = int(row["ranks"])
                is_full = row["arm"] != "local" or ranks == 1
                self.assertEqual(row["weights_hash"] in hashes, is_full, row)
                self.assertEqual(row["max_weight_difference"], "0" if row["arm"] == "sync" else "")
                if row["arm"] != "single":
                    self.assertEqual(int(row["rank_batch_min"]), {1: 300, 2: 150, 3: 75, 4: 75}[ranks], row)
        self.assertEqual({line["ranks"] for line in self.lines() if line.get("arm") == "sync"}, set(COUNTS))
        self.assertEqual([(line["ranks"], line["seed"], line["passed"]) for line in self.lines() if line["kind"] == "check"],
                         [(count, seed, True) for seed in (1, 2) for count in COUNTS])
        record = json.loads((self.out / "run.json").read_text())
        self.assertEqual((record["ranks"], record["arguments"]["ranks"]), (RANKS, COUNTS))
        page = self.assert_report_remakes_the_page()
        if len(COUNTS) == 1:
            return
        words = ", ".join(map(str, COUNTS[:-1])) + f" and {COUNTS[-1]} ranks"
        self.assertIn(f"Sync minus single = 0 on {words}", page)
        self.assertIn(f"Sync on {words} trained like the full batch in one process, to the last bit", stdout)
        for count in COUNTS:
            self.assertRegex(stdout, rf"(?m)^sync +{count} .* % .* 0 ")

    def test_with_several_batches(self):
        self.compare("--ranks", LIST, "--seeds", "1", "--arms", "sync,group:2,local", "--precise-bn")
        self.assertEqual(sum(line["kind"] == "check" for line in self.lines()), len(COUNTS) - 1)
        result = run("compare", "--network", "mlp", "--epochs", "1", "--quiet", "--batches", "300,600", "--out", str(self.out),
                     "--ranks", LIST, "--seeds", "1")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(len(self.rows()), 2 * (1 + 2 * len(COUNTS)))
        self.assert_report_remakes_the_page()

    def test_one_number_that_is_not_all(self):
        stdout = self.compare("--ranks", "1", "--seeds", "1")
        self.assertIn("1 rank" if RANKS == 1 else f"1 of {RANKS} ranks", stdout)
        self.assertIn("With one rank all arms are the same", stdout)
        self.assertEqual({row["ranks"] for row in self.rows()}, {"1"})

    def test_files_of_earlier_versions_have_their_ranks_in_run_json(self):
        self.compare("--seeds", "1")
        before = (self.out / "report.html").read_text()
        lines = self.lines()
        for line in lines:
            del line["ranks"]
        (self.out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        record = json.loads((self.out / "run.json").read_text())
        del record["arguments"]["ranks"]
        for share in record["shares"]:
            del share["ranks"]
        (self.out / "run.json").write_text(json.dumps(record))
        result = run("report", str(self.out), ranks=1)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual((self.out / "report.html").read_text(), before)

    def test_refuses_wrong_lists(self):
        most = f"1 to {RANKS}, the number of ranks that were started"
        for ranks, sentence in (("0", f"--ranks has 0, wanted {most}"),
                                (f"1,{RANKS + 1}", f"--ranks has {RANKS + 1}, wanted {most}"),
                                ("1,1", "--ranks names 1 twice"), ("1,x", "--ranks has 'x', wanted a whole number"),
                                ("-1", "--ranks has '-1'"), (",", "--ranks has no number"),
                                ("99999999999999999999", "wanted a whole number"), ("9223372036854775809", "wanted 1 to")):
            self.assert_refused(2, sentence, "compare", *SHORT, "--out", str(self.out), "--ranks", ranks)
        self.assertFalse(self.out.exists())

    def start_long(self, *arguments: str):
        """Returns when it trains."""
        shutil.rmtree(self.out, ignore_errors=True)
        process = start("compare", *LONG, "--out", str(self.out), *arguments)
        wait_for_steps(process, self.out / "metrics.jsonl", 1)
        return process

    def test_a_signal_stops_it_with_a_page(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            process = self.start_long("--epochs", "100000", "--arms", "sync,local", "--ranks", str(max(1, RANKS - 1)))
            os.kill(ranks_of(process)[0], number)
            stdout, stderr = self.finish(process)
            self.assertEqual(process.returncode, 0, stderr)
            self.assertRegex(stdout, r"(?m)^This run has not finished, or was cut off: 0 of 2 trainings are complete; "
                                     r"sync with seed 1 came to epoch \d+ of 100000\.$")
            record = json.loads((self.out / "run.json").read_text())
            self.assertEqual((record["state"], record["results"]), ("stopped", []))
            self.assertRegex(record["ended"], r"^2\d{3}-.*Z$")
            self.assertIn("nothing to compare yet", self.assert_report_remakes_the_page())

    def test_a_folder_of_a_run_that_was_killed(self):
        process = self.start_long("--epochs", "100000", "--arms", "local", "--ranks", LIST)
        for rank in ranks_of(process):
            with contextlib.suppress(ProcessLookupError):  # the launcher may be faster, once the first one is dead
                os.kill(rank, signal.SIGKILL)
        self.finish(process)
        result = run("report", str(self.out), ranks=1)
        self.assertEqual(result.returncode, 0, result.stderr)
        where = f" on {COUNTS[0]} rank" if len(COUNTS) > 1 else ""
        self.assertIn(f"0 of {len(COUNTS)} trainings are complete; local with seed 1{where}", result.stdout)
        metrics = (self.out / "metrics.jsonl").read_text()
        (self.out / "metrics.jsonl").write_text(metrics.replace('"ranks":', '"ranks":1', 1))
        self.assertEqual(run("report", str(self.out), ranks=1).returncode, 3 if len(COUNTS) > 1 else 0)

    def assert_misses(self, hangs: int, sentence: str, *arguments: str):
        """A training that would take hours ends soon after one of the ranks has been stopped."""
        os.environ["SYNCBN_DEADLINE_SECONDS"] = "2"
        self.addCleanup(os.environ.pop, "SYNCBN_DEADLINE_SECONDS", None)
        process = self.start_long("--epochs", "100000", *arguments)
        rank = ranks_of(process)[hangs]
        os.kill(rank, signal.SIGSTOP)
        begin = time.monotonic()
        try:
            stdout, stderr = self.finish(process)
        finally:
            try:
                os.kill(rank, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.assertEqual(process.returncode, 4, stdout + stderr)
        self.assertIn(sentence, stderr)
        self.assertLess(time.monotonic() - begin, 8)  # deadline, a second, and what the launcher needs

    @unittest.skipIf(RANKS < 3, "needs two that train and one that waits")
    def test_nobody_waits_for_ever_for_a_rank_that_hangs(self):
        last = RANKS - 1
        self.assert_misses(1, "rank 1 of 2 is missing", "--arms", "sync", "--ranks", "2")
        for arm in ("sync", "local", "group:2"):
            self.assert_misses(last, f"[training on 2 of {RANKS} ranks]: rank {last} of {RANKS} is missing: no answer within "
                                     "the deadline of 2 s", "--arms", arm, "--ranks", "2")

    @unittest.skipIf(RANKS < 2, "needs one that waits")
    def test_a_rank_that_hangs_while_it_waits_for_single(self):
        last = RANKS - 1
        self.assert_misses(last, f"[training on rank 0]: rank {last} of {RANKS} is missing", "--arms", "single")
        self.assert_misses(0, f"rank 0 of {RANKS} is missing", "--arms", "single")


if __name__ == "__main__":
    unittest.main()
