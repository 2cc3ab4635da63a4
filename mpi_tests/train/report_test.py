#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""report.html and syncbn report: of whole runs, of runs that were killed, and of rubbish."""
import html.parser
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tool import RANKS, run  # noqa: E402

SHORT = ("--epochs", "2", "--network", "mlp", "--quiet")
END = "Test error, mean of both epochs"
VOID = {"meta"}
SHAPES = {"line", "path", "rect", "circle"}


class Page(html.parser.HTMLParser):
    """Checks that elements are closed in order and ids are there once; keeps texts and attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.texts, self.tags, self.ids, self.references = [], [], [], [], []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.note(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in SHAPES, f"<{tag}/> is no element of SVG"
        self.note(tag, attributes)

    def note(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                assert value not in self.ids, f"id {value} twice"
                self.ids.append(value)
            if name == "aria-labelledby":
                self.references += value.split()
            assert "nan" not in value.lower() and "inf" not in value.lower().split(), f"{tag} {name}={value}"
            assert name not in ("src", "href") and not name.startswith("on"), f"{tag} {name}={value}"

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        self.texts.append(data)

    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


class ReportTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="syncbn_report_test."))
        self.addCleanup(shutil.rmtree, self.folder)
        self.out = self.folder / "out"

    def page(self) -> Page:
        page = Page((self.out / "report.html").read_text())
        self.assertLessEqual(set(page.references), set(page.ids))
        self.assertNotIn("script", page.tags)
        return page

    def compare(self, *arguments: str) -> None:
        result = run("compare", *SHORT, "--out", str(self.out), *arguments)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn(f"written  {self.out}/report.html", result.stdout)

    def test_compare_writes_the_page_and_report_remakes_it(self):
        self.compare("--batch", "200", "--seeds", "2")
        page = self.page()
        for words in ("Summary", "Sync minus single", "How the run was made", "same bits", "samples per process",
                      "Test error over the epochs", "Time per step", f"syncbn compare --network mlp --epochs 2",
                      "built-in: 3000 training and 1000 test images", "Seeds 1, 2"):
            self.assertIn(words, page.text())
        for words in ("What a step costs", "standing still until the other processes' sums are there"):
            self.assertIn(words, page.text())
        self.assertEqual(len([name for name in page.ids if name.endswith("-d") and not name.startswith("drift")]), 4)
        before = (self.out / "report.html").read_bytes()
        (self.out / "report.html").unlink()
        (self.out / "summary.csv").unlink()
        result = run("report", str(self.out), ranks=1)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual((self.out / "report.html").read_bytes(), before)
        elsewhere = self.folder / "page.html"
        self.assertEqual(run("report", str(self.out), "--out", str(elsewhere), ranks=1).returncode, 0)
        self.assertEqual(elsewhere.read_bytes(), before)

    def test_several_batches_get_a_chart_each_and_one_over_n(self):
        self.compare("--batches", "600,300", "--seeds", "1", "--arms", "sync,local,group:2,group:3,group:4,group:5")
        page = self.page()
        self.assertEqual(len([name for name in page.ids if name.endswith("-d") and not name.startswith("drift")]), 5)
        self.assertIn(END + " over samples per process", page.text())
        self.assertIn("0.05 for a batch of 600, 0.025 for a batch of 300", page.text())

    def test_a_run_of_an_earlier_version_has_a_page_without_costs(self):
        self.compare("--batch", "300", "--seeds", "1", "--arms", "sync,local")
        page = (self.out / "report.html").read_text()
        self.assertEqual(page.count('class="part part-message"'), 2)
        metrics = [json.loads(line) for line in (self.out / "metrics.jsonl").read_text().splitlines()]
        for line in metrics:
            line.pop("step_costs", None)
        (self.out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
        result = run("report", str(self.out), ranks=1)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertNotIn("What a step costs", self.page().text())
        self.assertIn("Time per step", self.page().text())

    def test_sync_on_several_ranks_has_a_heat_map(self):
        self.compare("--batch", "30", "--seeds", "2", "--arms", "sync,local")
        lines = [json.loads(line) for line in (self.out / "metrics.jsonl").read_text().splitlines()]
        drifts = [line for line in lines if line["kind"] == "drift"]
        has_map = RANKS > 1
        self.assertEqual({(line["arm"], line["seed"]) for line in drifts}, {("sync", 1), ("sync", 2)} if has_map else set())
        for line in drifts:
            self.assertEqual(line["layers"], ["bn1", "bn2"])
            self.assertTrue(all(0 < drift < 10 for drift in line["mean_drift"]), line)
        for seed in (1, 2):
            steps = [line["step"] for line in drifts if line["seed"] == seed]
            self.assertEqual(steps, sorted(set(steps)))
            self.assertLessEqual(len(steps), 200)
        page = self.page()
        self.assertEqual("How far local statistics would have been off" in page.text(), has_map)
        self.assertEqual("drift30-d" in page.ids, has_map)
        if not has_map:
            return
        text = (self.out / "metrics.jsonl").read_text()
        self.cut_behind(text, '"kind":"drift"', 40)
        self.assertEqual(run("report", str(self.out), ranks=1).returncode, 0)
        self.assertIn("drift30-d", self.page().ids)

    def cut_behind(self, text: str, words: str, characters: int) -> None:
        """metrics.jsonl ends within the last line that has these words."""
        (self.out / "metrics.jsonl").write_text(text[:text.rindex(words) + characters])

    def test_statistics_have_a_table(self):
        self.compare("--batch", "300", "--seeds", "2", "--arms", "sync,local", "--precise-bn")
        page = self.page()
        self.assertIn("Test error by the statistics that evaluation uses", page.text())
        lines = [json.loads(line) for line in (self.out / "metrics.jsonl").read_text().splitlines()]
        for line in (line for line in lines if line["kind"] == "epoch"):
            self.assertIn("precise_bn_accuracy", line)
            has_ranks = line["arm"] == "local" and RANKS > 1
            for key in ("mean_statistics_accuracy", "worst_rank_accuracy", "best_rank_accuracy"):
                self.assertEqual(key in line, has_ranks, line)
        self.assertTrue(json.loads((self.out / "run.json").read_text())["arguments"]["precise_bn"])

    def test_json_has_what_the_page_says(self):
        path = self.folder / "all.json"
        result = run("compare", *SHORT, "--batch", "300", "--seeds", "2", "--out", str(self.out), "--json", str(path))
        self.assertEqual(result.returncode, 0, result.stderr)
        told = json.loads(path.read_text())
        record = json.loads((self.out / "run.json").read_text())
        self.assertEqual({key: told[key] for key in record}, record)
        self.assertIn(told["verdict"]["headline"] + "\n", result.stdout)
        for sentence in told["verdict"]["details"]:
            self.assertIn(sentence + "\n", result.stdout)
        self.assertEqual([training["weights_hash"] for training in told["trainings"]],
                         [result["weights_hash"] for result in record["results"]])
        epochs = [json.loads(line) for line in (self.out / "metrics.jsonl").read_text().splitlines()]
        epochs = [line for line in epochs if line["kind"] == "epoch"]
        self.assertEqual([epoch["train_loss"] for training in told["trainings"] for epoch in training["epochs"]],
                         [line["train_loss"] for line in epochs])
        self.assertEqual([(each["arm"], each["ended"]) for each in told["figures"]],
                         [("single", 2), ("sync", 2), ("local", 2)])
        for each in told["figures"]:
            ends = [training["test_error"] for training in told["trainings"] if training["arm"] == each["arm"]]
            error = each["test_error"]
            self.assertEqual((error["smallest"], error["largest"]), (min(ends), max(ends)))
            self.assertAlmostEqual(error["median"], sum(ends) / 2, places=12)

    def test_json_that_cannot_be_written_is_refused_before_training(self):
        for path, words in ((self.folder / "no" / "x.json", "there is no folder"), (self.folder, "is a folder")):
            result = run("compare", *SHORT, "--out", str(self.out), "--json", str(path))
            self.assertEqual(result.returncode, 3, result.stderr)
            self.assertIn(words, result.stderr)
            self.assertFalse(self.out.exists())

    def test_what_has_no_effect_is_said_or_refused(self):
        result = run("compare", *SHORT, "--seeds", "3,3", "--out", str(self.out))
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("--seeds names 3 twice", result.stderr)
        result = run("compare", *SHORT, "--seeds", "1", "--batch", "300", "--arms", f"sync,group:{RANKS + 1}", "--out",
                     str(self.out), "--schedule", "multistep", "--milestones", "1,2")
        self.assertEqual(result.returncode, 0, result.stderr)
        ranks = "1 rank trains" if RANKS == 1 else f"{RANKS} ranks train"
        self.assertIn(f"syncbn compare: arm group:{RANKS + 1} is the same as sync: no more than {ranks}\n", result.stderr)
        self.assertIn("syncbn compare: --milestones 2 is never reached: the training ends after 2 epochs\n", result.stderr)

    def test_divergence_has_no_accuracy(self):
        result = run("compare", "--epochs", "2", "--network", "mlp", "--seeds", "1", "--batch", "300", "--lr", "1e30", "--out",
                     str(self.out))
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertRegex(result.stderr, r"(?m)^single: epoch \d of 2, diverged, ")
        self.assertNotIn("0.00 %", result.stderr)

    def test_a_train_run_has_a_page_too(self):
        self.assertEqual(run("train", *SHORT, "--batch", "300", "--out", str(self.out)).returncode, 0)
        self.assertEqual(run("report", str(self.out), ranks=1).returncode, 0)
        self.assertIn(END + ": sync ", self.page().text())

    @unittest.skipIf(RANKS > 1, "a run that is killed leaves its launcher behind")
    def test_a_killed_run_is_shown_as_far_as_it_came(self):
        command = [os.environ["SYNCBN_TOOL"], "compare", "--epochs", "100000", "--batch", "200", "--network", "mlp",
                   "--quiet", "--out", str(self.out)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            metrics = self.out / "metrics.jsonl"
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count('"epoch",') > 2):
                time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
        self.assertEqual(sorted(path.name for path in self.out.iterdir()), ["metrics.jsonl", "run.json"])
        self.assertEqual(json.loads((self.out / "run.json").read_text())["state"], "running")
        text = metrics.read_text()
        metrics.write_text(text[:text.rindex("{") + 20])  # the last line is cut off, too
        result = run("report", str(self.out), ranks=1)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("has not finished, or was cut off: 0 of ", result.stdout)
        page = self.page()
        self.assertRegex(page.text(), r"single with seed 1 came to epoch \d+ of 100000")
        self.assertIn("nothing to compare yet", page.text())
        self.assertIn("Test error over the epochs", page.text())

    def test_what_is_foreign_is_escaped(self):
        self.compare("--batch", "600", "--seeds", "1", "--arms", "sync")
        record = json.loads((self.out / "run.json").read_text())
        record["data"]["name"] = "</title><script>alert('1')</script>\u0000&\"\u202e"
        record["hosts"][0]["name"] = record["versions"]["mpi"] = record["command"] = record["started"] = "<img src=x>"
        (self.out / "run.json").write_text(json.dumps(record))
        self.assertEqual(run("report", str(self.out), ranks=1).returncode, 0)
        page = self.page()
        self.assertNotIn("img", page.tags)
        self.assertIn("<img src=x>", page.text())
        self.assertIn("</title><script>alert('1')</script>", page.text())

    def refuse(self, sentence: str, *arguments: str) -> None:
        result = run("report", *arguments, ranks=1)
        self.assertEqual(result.returncode, 3, result.stdout + result.stderr)
        self.assertEqual(result.stdout, "")
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertIn(sentence, result.stderr)

    def test_folders_without_a_run_are_refused(self):
        self.refuse("does not exist", str(self.folder / "nowhere"))
        self.refuse("it has no run.json", str(self.folder))
        (self.folder / "run.json").write_text("{}")
        self.refuse("it has no metrics.jsonl", str(self.folder))
        (self.folder / "metrics.jsonl").mkdir()
        self.refuse("is not a file", str(self.folder))
        self.refuse("is not a folder", str(self.folder / "run.json"))
        os.mkfifo(self.folder / "pipe")
        self.refuse("is not a folder", str(self.folder / "pipe"))

    def test_rubbish_is_refused_and_the_old_page_stays(self):
        self.compare("--batch", "600", "--seeds", "1", "--arms", "sync")
        before = (self.out / "report.html").read_bytes()
        record, metrics = ((self.out / name).read_bytes() for name in ("run.json", "metrics.jsonl"))
        for name, content, sentence in (
                ("run.json", b"", "run.json is not JSON"),
                ("run.json", os.urandom(4096), "run.json is not JSON"),
                ("run.json", record[:-20], "run.json is not JSON"),
                ("run.json", b"{}", '"ranks"'),
                ("run.json", record.replace(b'"sync"', b'"async"'), "arm 'async'"),
                ("run.json", record.replace(b'"batches"', b'"batch"'), '"batches"'),
                ("metrics.jsonl", os.urandom(64) + b"\n" + metrics, "line 1 is not JSON"),
                ("metrics.jsonl", metrics[5:], "line 1 is not JSON"),
                ("metrics.jsonl", metrics + b"null\n", "is not a JSON object"),
                ("metrics.jsonl", metrics.replace(b'"test_accuracy":0', b'"test_accuracy":7'), '"test_accuracy"'),
                ("metrics.jsonl", metrics.replace(b'"rest_seconds":', b'"rest_seconds":-'), '"rest_seconds"'),
                ("metrics.jsonl", b"{" * 2000000 + b"\n", "line 1 is not JSON")):
            with self.subTest(name=name, content=content[:40]):
                (self.out / "run.json").write_bytes(record)
                (self.out / "metrics.jsonl").write_bytes(metrics)
                (self.out / name).write_bytes(content)
                self.refuse(sentence, str(self.out))
                self.assertEqual((self.out / "report.html").read_bytes(), before)

    @unittest.skipIf(RANKS == 1, "needs the launcher")
    def test_under_the_launcher_one_process_does_it(self):
        self.compare("--batch", "600", "--seeds", "1", "--arms", "sync")
        result = run("report", str(self.out))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stdout.count("written "), 1)
        result = run("report", str(self.folder))
        self.assertEqual(result.returncode, 3)
        self.assertEqual(result.stderr.count("syncbn report: "), 1, result.stderr)


if __name__ == "__main__":
    unittest.main()
