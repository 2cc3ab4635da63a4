#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""syncbn train and syncbn compare: output, files, exit codes."""
import csv
import fcntl
import json
import os
import pathlib
import pty
import re
import struct
import subprocess
import sys
import termios
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from tool import RANKS, ToolTest, run, value_after, write_cifar  # noqa: E402

SHORT = ("--epochs", "1", "--batch", "300", "--network", "mlp")


class TrainTest(ToolTest):
    def test_ends_with_the_hash_of_the_weights(self):
        first = run("train", *SHORT)
        self.assertEqual(first.returncode, 0, first.stderr)
        last_line = first.stdout.splitlines()[-1]
        self.assertRegex(last_line, r"^weights hash: [0-9a-f]{16}$")
        self.assertIn("epoch 1 of 1", first.stderr)
        again = run("train", *SHORT, "--quiet")
        self.assertEqual(again.stdout.splitlines()[-1], last_line)
        self.assertNotIn("epoch", again.stderr)
        threads = run("train", *SHORT, "--quiet", "--threads", "2")
        self.assertEqual(threads.stdout.splitlines()[-1], last_line)
        other = run("train", *SHORT, "--quiet", "--seed", "2")
        self.assertNotEqual(other.stdout.splitlines()[-1], last_line)

    def test_writes_its_files(self):
        out = self.folder / "deep" / "run"
        result = run("train", *SHORT, "--arm", "local", "--seed", "7", "--quiet", "--out", str(out))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(sorted(path.name for path in out.iterdir()), ["checkpoint.syncbn", "metrics.jsonl", "run.json"])
        record = json.loads((out / "run.json").read_text())
        self.assertEqual(record["command"], "train")
        self.assertEqual(record["ranks"], RANKS)
        self.assertEqual(record["arguments"]["arms"], ["local"])
        self.assertEqual(record["arguments"]["seeds"], [7])
        self.assertEqual(record["results"][0]["weights_hash"], value_after(result.stdout, "weights hash:"))
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        epochs = [line for line in lines if line["kind"] == "epoch"]
        self.assertEqual([(line["arm"], line["epoch"]) for line in epochs], [("local", 1)])
        self.assertEqual(set(epochs[0]), {"kind", "arm", "ranks", "batch", "seed", "epoch", "train_loss",
                                          "test_accuracy", "seconds", "step_seconds", "step_costs"})
        self.assertEqual(epochs[0]["step_costs"], record["results"][0]["step_costs"])  # the median of one epoch
        self.assertEqual(lines[-1]["kind"], "end")
        self.assertEqual(lines[-1]["weights_hash"], record["results"][0]["weights_hash"])
        self.assertEqual(sum(host["ranks"] for host in record["hosts"]), RANKS)
        self.assertIn("train --arm local --network mlp --epochs 1 --batch 300 --quiet --seed 7", record["command_line"])

    def test_refuses_wrong_arguments(self):
        self.assert_refused(2, "number of epochs is -1", "train", "--epochs", "-1")
        self.assert_refused(2, "global batch is 0", "train", "--batch", "0")
        self.assert_refused(2, "number of threads is 0", "train", "--threads", "0")
        self.assert_refused(2, "1 to 3000", "train", "--batch", "3001")
        self.assert_refused(2, "no network 'lstm'", "train", "--network", "lstm")
        self.assert_refused(2, "no arm 'global'", "train", "--arm", "global")
        self.assert_refused(2, "--seed", "train", "--seed", "-4")

    def test_shards_by_class(self):
        hashes = set()
        for mode in ("iid", "by-class", "dirichlet:0.30", "dirichlet:7"):
            out = self.folder / mode
            result = run("train", *SHORT, "--quiet", "--shard", mode, "--out", str(out))
            self.assertEqual(result.returncode, 0, result.stderr)
            name = mode.replace("0.30", "0.3")
            self.assertEqual(json.loads((out / "run.json").read_text())["arguments"]["shard"], name)
            self.assertEqual(f"global batch 300, shard {name}, seed" in result.stdout, mode != "iid", result.stdout)
            hashes.add(value_after(result.stdout, "weights hash:"))
            alone = run("train", *SHORT, "--quiet", "--shard", mode, "--arm", "single", ranks=1)
            self.assertIn(value_after(alone.stdout, "weights hash:"), hashes)
        self.assertEqual(len(hashes), 4)

    def test_refuses_other_shards(self):
        for mode in ("byclass", "", "dirichlet"):
            self.assert_refused(2, f"--shard: '{mode}' is not one of iid, by-class and dirichlet:ALPHA", "train",
                                "--shard", mode)
        for mode in ("dirichlet:0", "dirichlet:-2", "dirichlet:nan", "dirichlet:inf", "dirichlet:", "dirichlet:x"):
            self.assert_refused(2, f"--shard: '{mode}' needs a positive finite number", "compare", "--shard", mode)
        self.assert_refused(2, "--shard needs a value", "compare", "--shard")

    def test_takes_schedules(self):
        out = self.folder / "run"
        result = run("train", *SHORT, "--quiet", "--out", str(out), "--schedule", "multistep", "--milestones", "1,3",
                     "--lr-gamma", "0.5", "--warmup", "4")
        self.assertEqual(result.returncode, 0, result.stderr)
        arguments = json.loads((out / "run.json").read_text())["arguments"]
        self.assertEqual((arguments["schedule"], arguments["milestones"], arguments["lr_gamma"], arguments["warmup"]),
                         ("multistep", [1, 3], 0.5, 4))
        self.assert_refused(2, "needs --milestones", "train", *SHORT, "--schedule", "multistep")
        self.assert_refused(2, "0 to 10 steps", "train", *SHORT, "--warmup", "11")

    @unittest.skipIf(RANKS > 1, "the launcher's stderr is a pipe")
    def test_a_terminal_gets_a_bar_of_its_width(self):
        for environment, has_bar in (({"TERM": "xterm", "NO_COLOR": "1"}, True), ({"TERM": "xterm"}, True),
                                     ({"TERM": "dumb"}, False)):
            terminal, end = pty.openpty()
            fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
            command = [os.environ["SYNCBN_TOOL"], "train", "--epochs", "40", "--batch", "20", "--network", "mlp"]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=end, env={**os.environ, **environment}) as tool:
                os.close(end)
                shown = b""
                try:
                    while part := os.read(terminal, 4096):
                        shown += part
                except OSError:  # how Linux says that the other end is closed
                    pass
            os.close(terminal)
            self.assertEqual(tool.returncode, 0)
            text = shown.decode()
            self.assertNotIn("\x1b", text)
            self.assertEqual(bool(re.search(r"sync \[#*-*\] \d+ %, [\d.]+ steps/s, \d+:\d\d left, loss \d", text)), has_bar, text)
            self.assertEqual(text.count("\n"), 1 if has_bar else 40, text)
            self.assertLess(max(len(line) for line in re.split(r"[\r\n]+", text)), 90 if has_bar else 120)

    def test_refuses_missing_data(self):
        self.assert_refused(3, "does not exist", "train", "--data", str(self.folder / "nowhere"))
        self.assert_refused(3, "has neither IDX files", "train", "--data", str(self.folder))
        (self.folder / "t10k-images-idx3-ubyte").write_bytes(b"")
        self.assert_refused(3, "has no train-images-idx3-ubyte[.gz], train-labels", "train", "--data", str(self.folder))

    def test_trains_on_colour_images(self):
        for number in range(1, 6):
            write_cifar(self.folder, f"data_batch_{number}.bin", 6 + number)
        write_cifar(self.folder, "test_batch.bin", 10)
        for network in ("mlp", "cnn", "resnet"):
            result = run("train", "--data", str(self.folder), "--network", network, "--batch", "15", "--epochs", "1", "--quiet")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn(": 45 training and 10 test images of 32 x 32 pixels, 3 channels\n", result.stdout)
            self.assertIn(" 3 steps in ", result.stdout)

    def test_refuses_a_damaged_colour_folder(self):
        for number in range(1, 6):
            write_cifar(self.folder, f"data_batch_{number}.bin", 1)
        arguments = ("train", "--data", str(self.folder))
        self.assert_refused(3, "has no test_batch.bin", *arguments)
        (self.folder / "test_batch.bin").write_bytes(b"<html></html>")
        self.assert_refused(3, "is a web page", *arguments)
        write_cifar(self.folder, "test_batch.bin", 2)
        (self.folder / "train-images-idx3-ubyte").write_bytes(b"")
        self.assert_refused(3, "has both IDX files", *arguments)

    def test_a_diverged_training_is_a_failed_check(self):
        """A loss that is not finite; and weights that are not, when the loss before them still was."""
        for options, sentence in ((("--lr", "1e38", "--batch", "300"), r"the loss of step \d+ is not finite"),
                                  (("--lr", "1e39", "--batch", "3000"), "the weights after step 1 are not finite")):
            out = self.folder / options[1]
            result = run("train", "--network", "mlp", "--epochs", "1", *options, "--out", str(out))
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertRegex(result.stdout, rf"(?m)^training diverged: {sentence}; try a smaller --lr$")
            self.assertNotIn("accuracy", result.stdout + result.stderr)
            self.assertIn("epoch 1 of 1, diverged", result.stderr)
            record = json.loads((out / "run.json").read_text())["results"][0]
            self.assertEqual((record["diverged"], record["test_accuracy"]), (True, None))
            report = run("report", str(out), ranks=1)
            self.assertEqual(report.returncode, 0, report.stderr)
            self.assertIn("Training diverged in sync", report.stdout)

    def test_warns_of_milestones_that_are_never_reached(self):
        for milestones, sentence in (("1", ""), ("1,2", "--milestones 2 is never reached: the training ends after 2 epochs"),
                                     ("2,5", "--milestones 2,5 are never reached: the training ends after 2 epochs")):
            result = run("train", "--network", "mlp", "--batch", "3000", "--epochs", "2", "--quiet", "--schedule", "multistep",
                         "--milestones", milestones)
            self.assertEqual(result.returncode, 0, result.stderr)
            spoken = [line for line in result.stderr.splitlines() if line.startswith("syncbn ")]
            self.assertEqual(spoken, [f"syncbn train: {sentence}"] if sentence else [])

    def test_says_one_step_and_one_epoch(self):
        result = run("train", "--network", "mlp", "--batch", "3000", "--epochs", "1", "--quiet")
        self.assertIn(", 1 step in ", result.stdout)
        self.assert_refused(2, "a milestone is 1, wanted more than 1 epoch", "train", *SHORT, "--schedule", "multistep",
                            "--milestones", "1,1")


class CompareTest(ToolTest):
    def compare(self, *arguments: str):
        seeds = () if "--seeds" in arguments else ("--seeds", "1,")
        return run("compare", *SHORT, "--quiet", "--out", str(self.folder / "out"), *seeds, *arguments)

    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "out" / "summary.csv").open() as file:
            return list(csv.DictReader(file))

    def test_prints_a_table_and_writes_its_files(self):
        result = self.compare("--seeds", "2")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        for arm in ("single", "sync", "local"):
            self.assertRegex(result.stdout, rf"(?m)^{arm} .* %")
        self.assertEqual(len(re.findall(r"(?m)^seed \d, batch 300: sync .*: passed$", result.stdout)), 2)
        sentence = "With one rank all arms are the same" if RANKS == 1 else " samples per process, local batch norm "
        self.assertIn(sentence, result.stdout)
        self.assertIn("\nnetwork mlp, 1 epoch, global batch 300, ", result.stdout)
        self.assertRegex(result.stdout, rf"Sync on {RANKS} ranks? trained like the full batch in one process")
        self.assertEqual(sorted(path.name for path in (self.folder / "out").iterdir()),
                         ["metrics.jsonl", "report.html", "run.json", "summary.csv"])
        self.assertEqual([(row["arm"], row["seed"]) for row in self.rows()],
                         [(arm, seed) for seed in "12" for arm in ("single", "sync", "local")])
        record = json.loads((self.folder / "out" / "run.json").read_text())
        self.assertTrue(all(check["passed"] for check in record["checks"]))
        for line in (self.folder / "out" / "metrics.jsonl").read_text().splitlines():
            self.assertIn(json.loads(line)["kind"], ("step", "drift", "epoch", "end", "check"))

    def test_says_once_that_training_diverged(self):
        result = self.compare("--lr", "1e30", "--seeds", "2")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertRegex(result.stdout.splitlines()[-2], r"^Training diverged in single, sync, local: .*--lr\.$")
        for word in ("nan", "passed", "FAILED", "fault"):
            self.assertNotIn(word, result.stdout)
        self.assertEqual(self.compare("--lr", "1e30", "--arms", "local").returncode, 1)

    def test_replaces_the_files_of_an_earlier_run(self):
        self.assertEqual(self.compare("--seeds", "3,").returncode, 0)
        self.assertEqual(self.compare("--arms", "local", "--seeds", "4,9").returncode, 0)
        self.assertEqual([(row["arm"], row["seed"]) for row in self.rows()], [("local", "4"), ("local", "9")])
        metrics = (self.folder / "out" / "metrics.jsonl").read_text()
        self.assertNotIn('"sync"', metrics)

    def test_says_what_a_step_costs(self):
        """The parts are there in every epoch; only sync sends, what pass_costs.hpp says (mlp: 128 and 64 channels)."""
        result = self.compare("--arms", "single,sync,local")
        self.assertEqual(result.returncode, 0, result.stderr)
        lines = [json.loads(line) for line in (self.folder / "out" / "metrics.jsonl").read_text().splitlines()]
        record = json.loads((self.folder / "out" / "run.json").read_text())
        for line in [line for line in lines if line["kind"] == "epoch"] + record["results"]:
            costs = line["step_costs"]
            parts = [costs[key] for key in ("statistics_seconds", "message_seconds", "element_seconds", "rest_seconds")]
            self.assertGreaterEqual(min(parts), 0)
            self.assertLessEqual(10 * sum(parts), line["seconds"])  # 10 steps
            sends = line["arm"] == "sync" and RANKS > 1
            self.assertEqual(costs["message_bytes"], 2 * (120 + 54 * 128 + 120 + 54 * 64) if sends else 0)
            self.assertEqual(costs["message_seconds"] > 0, sends)

    def test_trains_in_groups(self):
        self.assertEqual(self.compare("--arms", "sync,group:2").returncode, 0)
        self.assertEqual([row["arm"] for row in self.rows()], ["sync", "group:2"])

    def test_sync_is_single_however_samples_are_handed_out(self):
        for mode, words in (("by-class", "handed out by class"),
                            ("dirichlet:0.3", "handed out in uneven class mixes (dirichlet:0.3)")):
            result = self.compare("--shard", mode)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            self.assertIn("sync and single end with the same bits in every weight: passed", result.stdout)
            self.assertIn(f"global batch 300, shard {mode}, {RANKS} rank", result.stdout)
            if RANKS > 1:
                self.assertIn(words, result.stdout)
            page = (self.folder / "out" / "report.html").read_text()
            self.assertIn("<dt>Samples to ranks</dt>\n<dd>" + mode, page)

    def test_refuses_a_folder_that_cannot_be_written(self):
        blocked = self.folder / "file"
        blocked.write_text("x")
        self.assert_refused(3, "cannot be made", "compare", *SHORT, "--out", str(blocked))
        self.assertEqual(blocked.read_text(), "x")
        if os.path.exists("/proc/self"):
            self.assert_refused(3, "cannot", "compare", *SHORT, "--out", "/proc/self")

    def test_a_failed_start_keeps_the_earlier_run(self):
        self.assertEqual(self.compare("--arms", "local").returncode, 0)
        before = (self.folder / "out" / "summary.csv").read_text()
        self.assertEqual(self.compare("--arms", "sync,nothing").returncode, 2)
        self.assertEqual(self.compare("--batch", "0").returncode, 2)
        self.assertEqual((self.folder / "out" / "summary.csv").read_text(), before)

    def test_refuses_wrong_arguments(self):
        self.assert_refused(2, "names sync twice", "compare", "--arms", "sync,sync")
        self.assert_refused(2, "--seeds has 'x'", "compare", "--seeds", "x")
        self.assert_refused(2, "1 to 1000", "compare", "--seeds", "0")
        self.assert_refused(2, "names 16 twice", "compare", "--batches", "16,16")
        self.assert_refused(2, "global batch is 0", "compare", "--batches", "16,0")
        self.assert_refused(2, "--batches has 'x'", "compare", "--batches", "64,x")
        self.assert_refused(2, "--batch excludes --batches", "compare", "--batches", "64", "--batch", "8")

    def test_takes_several_batches(self):
        result = run("compare", "--epochs", "1", "--network", "mlp", "--quiet", "--seeds", "1", "--batches", "300,600",
                     "--out", str(self.folder / "out"))
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual([(row["arm"], row["batch"]) for row in self.rows()],
                         [(arm, batch) for batch in ("300", "600") for arm in ("single", "sync", "local")])
        record = json.loads((self.folder / "out" / "run.json").read_text())
        rates = {share["batch"]: share["lr"] for share in record["shares"]}
        self.assertEqual(rates[600], 2 * rates[300])
        self.assertEqual([check["batch"] for check in record["checks"]], [300, 600])


if __name__ == "__main__":
    unittest.main()
