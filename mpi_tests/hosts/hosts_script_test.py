# SPDX-License-Identifier: MIT
"""scripts/hosts itself: hosts are apart from each other and from this machine, codes come through, nothing stays behind."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import hosts

WRONG = [(["-H", "0", "true"], "-H is '0'"), (["-H", "65", "true"], "-H is '65'"), (["-s", "x", "true"], "-s is 'x'"),
         (["-T", "0", "true"], "-T is '0'"), (["-d", "-1", "true"], "-d is '-1'"), (["-r", "fast", "true"], "-r is 'fast'"),
         (["-d"], "-d needs a value"), (["-q", "true"], "unknown option -q"), (["-H", "2", "--"], "no program")]


def own_namespaces():
    return {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "uts")}


def command_lines():
    """Of all processes of this machine."""
    lines = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            pass  # it has just ended
    return lines


class HostsScript(unittest.TestCase):
    def run_script(self, *arguments, script=hosts.SCRIPT, prefix=(), environment=None):
        return subprocess.run([*prefix, "bash", str(script), *arguments], capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL, env=environment or hosts.environment())

    def test_wrong_usage_gets_one_sentence(self):
        for arguments, words in WRONG:
            with self.subTest(arguments):
                done = self.run_script(*arguments)
                self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1), done.stderr)
                self.assertIn(words, done.stderr)

    def test_without_root_it_says_so(self):
        with tempfile.TemporaryDirectory() as folder:  # the source tree may be closed to others
            os.chmod(folder, 0o755)
            script = shutil.copy(hosts.SCRIPT, folder)
            nobody = ["setpriv", "--reuid", "65534", "--clear-groups"]
            done = self.run_script("true", script=script, prefix=nobody)
        self.assertEqual(done.returncode, 77, done.stderr)
        self.assertEqual(done.stderr, "scripts/hosts: making network namespaces needs root\n")

    def test_another_mpi_is_refused(self):
        done = self.run_script("true", environment={**os.environ, "MPIRUN": "true"})
        self.assertEqual((done.returncode, done.stderr.count("\n")), (77, 1), done.stderr)
        self.assertIn("is not Open MPI", done.stderr)

    def test_hosts_have_names_addresses_and_namespaces_of_their_own(self):
        # In a file for each host: mpirun may mix what ranks print.
        show = 'cd "$1" && { readlink /proc/self/ns/net /proc/self/ns/uts; ip -br -4 address show eth0; } > "$(hostname)"'
        with tempfile.TemporaryDirectory() as folder:
            done = hosts.run(["bash", "-c", show, "show", folder], hosts=3, ranks_per_host=1)
            self.assertEqual(done.returncode, 0, done.stderr)
            said = {path.name: path.read_text().split() for path in pathlib.Path(folder).iterdir()}
        self.assertEqual(sorted(said), ["node1", "node2", "node3"])
        self.assertEqual(len({words[0] for words in said.values()} | {own_namespaces()["net"]}), 4)
        self.assertEqual(len({words[1] for words in said.values()} | {own_namespaces()["uts"]}), 4)
        for name, words in said.items():
            self.assertIn(f"10.200.0.{name[-1]}/24", words)

    def test_exit_code_is_that_of_the_program(self):
        self.assertEqual(hosts.run(["bash", "-c", "exit 7"], hosts=2, ranks_per_host=1).returncode, 7)

    def test_a_job_that_takes_too_long_is_ended(self):
        began = time.monotonic()
        done = self.run_script("-H", "2", "-s", "1", "-T", "2", "--", "sleep", "41.25")
        self.assertEqual(done.returncode, 124, done.stderr)
        self.assertIn("scripts/hosts: timed out after 2 seconds\n", done.stderr)
        self.assertLess(time.monotonic() - began, 20)
        self.assert_nothing_stays("sleep 41.25")

    def assert_nothing_stays(self, line):
        """No process with that command line; the kernel may take a moment."""
        end = time.monotonic() + 10
        while any(other.startswith(line) for other in command_lines()):
            self.assertLess(time.monotonic(), end, f"'{line}' still runs")
            time.sleep(0.05)

    def assert_ends_by(self, number, line, options=()):
        began = time.monotonic()
        script = subprocess.Popen([str(hosts.SCRIPT), "-H", "2", "-s", "2", *options, "--", *line.split()],
                                  env=hosts.environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            while sum(other.startswith(line) for other in command_lines()) < 4:
                self.assertIsNone(script.poll())
                self.assertLess(time.monotonic() - began, 30, "the job did not start")
                time.sleep(0.05)
            script.send_signal(number)
            _, said = script.communicate(timeout=20)
        finally:
            script.kill()
        self.assertEqual(script.returncode, -number if number == signal.SIGKILL else 128 + number, said)
        for word in ("unshare", "Killed", "scripts/hosts:"):  # it does as it was told: no complaints
            self.assertNotIn(word, said)
        self.assert_nothing_stays(line)

    def test_a_signal_ends_everything(self):
        for number, line in [(signal.SIGTERM, "sleep 42.25"), (signal.SIGINT, "sleep 43.25"), (signal.SIGKILL, "sleep 44.25")]:
            with self.subTest(number):
                self.assert_ends_by(number, line)

    def test_a_signal_ends_the_hub_too(self):
        reason = hosts.reason_against(["-d", "1"])
        if reason:
            self.skipTest(reason)
        self.assert_ends_by(signal.SIGTERM, "sleep 45.25", ["-d", "1.125"])
        self.assertFalse([line for line in command_lines() if "tap_hub 2 1.125" in line])

    def test_machine_is_as_before_and_two_runs_do_not_meet(self):
        def machine():
            links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, timeout=20).stdout
            named_as_ours = re.findall(r"^\d+: (bridge|port\d+|eth0@if\d+): ", links, re.MULTILINE)
            return named_as_ours, os.uname().nodename, pathlib.Path("/etc/hosts").read_bytes()

        before = machine()
        command = [str(hosts.SCRIPT), "-H", "2", "-s", "1", "--", "bash", "-c", "sleep 1; hostname"]
        runs = [subprocess.Popen(command, env=hosts.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
                for _ in range(2)]
        for run in runs:
            said, _ = run.communicate(timeout=60)
            self.assertEqual((run.returncode, sorted(said.split())), (0, ["node1", "node2"]))
        self.assertEqual(machine(), before)


if __name__ == "__main__":
    hosts.skip_unless_possible()
    unittest.main()
