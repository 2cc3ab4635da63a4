# SPDX-License-Identifier: MIT
"""Runs the syncbn program for the tests of the command line; finds a Python that has NumPy."""
import importlib.util
import os
import shlex
import subprocess
import sys

SYSTEM_PYTHON = "/usr/bin/python3"  # the one that Debian's python3-numpy belongs to
if importlib.util.find_spec("numpy") is None:
    has_other = os.path.exists(SYSTEM_PYTHON) and not os.path.samefile(sys.executable, SYSTEM_PYTHON)
    if has_other and "SYNCBN_TEST_PYTHON_TRIED" not in os.environ:
        os.environ["SYNCBN_TEST_PYTHON_TRIED"] = "1"
        os.execv(SYSTEM_PYTHON, [SYSTEM_PYTHON, "-B", *sys.argv])
    print("skipped: no NumPy (apt-get install python3-numpy)")
    sys.exit(77)

TOOL = os.environ["SYNCBN_TOOL"]
MPIRUN = os.environ["SYNCBN_MPIRUN"].split()
RANKS = int(os.environ.get("SYNCBN_RANKS", "1"))
TIMEOUT_SECONDS = 30  # one run takes about 0.3 s; a hang is a failure of the program, not of the test run


class Outcome:
    """What one run did. `complaints` are the program's own lines on stderr, without the launcher's."""

    def __init__(self, command, finished):
        self.command = shlex.join(command)
        self.code = finished.returncode
        self.stdout = finished.stdout
        self.stderr = finished.stderr
        self.complaints = [line for line in self.stderr.splitlines() if line.startswith(("syncbn", "[rank "))]

    def __str__(self):
        return f"{self.command}\nexit code {self.code}\nstdout:\n{self.stdout}\nstderr:\n{self.stderr}"


def run(arguments, ranks=RANKS, launcher=True, environment=None, shell_prefix=None):
    """Runs `syncbn ARGUMENTS...` on `ranks` ranks, each after the shell commands `shell_prefix`."""
    command = [TOOL, *map(str, arguments)]
    if shell_prefix:
        command = ["bash", "-c", f"{shell_prefix}; exec {shlex.join(command)}"]
    if launcher:
        command = [*MPIRUN, "-n", str(ranks), *command]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
                              env={**os.environ, **(environment or {})})
    return Outcome(command, finished)
