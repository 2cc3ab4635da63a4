# SPDX-License-Identifier: MIT
"""scripts/syncbn.slurm, with commands in place of Slurm's that write down how they were called."""
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import unittest

from tool import TOOL

SCRIPT = pathlib.Path(os.environ["SYNCBN_SOURCE_DIR"]) / "scripts/syncbn.slurm"
SHORT = ["--network", "mlp", "--epochs", "1", "--batch", "300"]

# Launchers run the program on one rank, without their own options.
LAUNCHER = """#!/bin/bash
echo "$(basename "$0") $* threads=$OMP_NUM_THREADS deadline=$SYNCBN_DEADLINE_SECONDS mpi=$SLURM_MPI_TYPE" >> "$CALLS"
while [ "$1" != "$SYNCBN_PROGRAM" ]; do shift; done
exec "$@"
"""
SCONTROL = '#!/bin/bash\necho "scontrol $*" >> "$CALLS"\n'
# Programs in place of syncbn.
FAILS_WITH_4 = '#!/bin/bash\n[ "$1" = info ] || exit 4\n'
TAKES_LONG = '#!/bin/bash\n[ "$1" = info ] || exec sleep 60\n'


class Slurm(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        for name, text in {"srun": LAUNCHER, "mpirun": LAUNCHER, "scontrol": SCONTROL}.items():
            self.make_command(name, text)

    def make_command(self, name, text):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    def start(self, arguments, program=TOOL, **variables):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SYNCBN_D"))}
        environment.update(PATH=f"{self.folder}:{environment['PATH']}", CALLS=str(self.folder / "calls"),
                           SYNCBN_PROGRAM=program, SLURM_JOB_ID="17", SLURM_NTASKS_PER_NODE="4", SLURM_CPUS_PER_TASK="2")
        environment.update(variables)
        return subprocess.Popen(["bash", str(SCRIPT), *arguments], cwd=self.folder, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run_job(self, arguments, **how):
        job = self.start(arguments, **how)
        self.stdout, self.stderr = job.communicate(timeout=60)
        return job.returncode

    def calls(self):
        return (self.folder / "calls").read_text().splitlines()

    def test_options_for_sbatch_are_all_in_the_head(self):
        """sbatch reads #SBATCH lines up to the first command only."""
        head = SCRIPT.read_text().split("\nset -", 1)[0]
        options = re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", head, re.MULTILINE)
        self.assertEqual(len(options), SCRIPT.read_text().count("\n#SBATCH "))
        for name in ("nodes", "ntasks-per-node", "cpus-per-task", "time", "signal", "requeue"):
            self.assertIn(name, dict(options))

    def test_srun_shows_info_and_then_trains(self):
        self.assertEqual(self.run_job(SHORT), 0, self.__dict__)
        self.assertRegex(self.stdout, r"(?s)\Asyncbn .*\nweights hash: [0-9a-f]{16}\n\Z")
        self.assertTrue((self.folder / "syncbn-17" / "run.json").exists())
        info, train = self.calls()
        for call in (info, train):
            self.assertRegex(call, r"^srun .*--cpus-per-task=2 .*--cpu-bind=verbose ")
            self.assertRegex(call, r" threads=2 deadline=300 mpi=pmix$")
        self.assertIn(f"{TOOL} info", info)
        self.assertIn(f"{TOOL} train --quiet {' '.join(SHORT)} --out syncbn-17 --resume ", train)

    def test_mpirun_gives_every_rank_its_cores(self):
        code = self.run_job([*SHORT, "--out", "mine"], SYNCBN_LAUNCHER="mpirun", SYNCBN_DEADLINE_SECONDS="60")
        self.assertEqual(code, 0, self.__dict__)
        self.assertTrue((self.folder / "mine" / "run.json").exists())
        self.assertIn("begins at its first step", self.stderr)
        self.assertEqual(self.run_job([*SHORT, "--out", "mine"]), 0, self.__dict__)  # queued again
        self.assertNotIn("begins", self.stderr)
        self.assertEqual(self.run_job([*SHORT, "--out", "mine", "--overwrite"]), 0, self.__dict__)
        (self.folder / "calls").write_text("\n".join(self.calls()[:2]))
        for call in self.calls():
            self.assertRegex(call, r"^mpirun --map-by ppr:4:node:pe=2 --bind-to core .* threads=2 deadline=60 ")

    def test_wrong_arguments_end_the_job_for_good(self):
        self.assertEqual(self.run_job(["--epochs", "x"]), 2)
        self.assertEqual(len(self.calls()), 2)

    def test_failed_mpi_is_tried_again_twice(self):
        program = self.make_command("syncbn", FAILS_WITH_4)
        for restarts, wanted in [("0", 1), ("1", 2), ("2", 2)]:
            self.assertEqual(self.run_job([], program=program, SLURM_RESTART_COUNT=restarts), 4)
            self.assertEqual(self.calls().count("scontrol requeue 17"), wanted)

    def test_sigterm_ends_the_step(self):
        job = self.start([], program=self.make_command("syncbn", TAKES_LONG))
        end = time.monotonic() + 20
        while not (self.folder / "calls").exists() or len(self.calls()) < 2:
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        _, said = job.communicate(timeout=20)
        self.assertEqual(job.returncode, 143, said)
        self.assertIn("with the same --out and it goes on from its last checkpoint", said)
        self.assertFalse([call for call in self.calls() if call.startswith("scontrol")])

    def test_without_slurm_it_says_what_it_is(self):
        self.assertNotEqual(self.run_job([], SLURM_JOB_ID=""), 0)
        self.assertIn("this is a batch script", self.stderr)
        self.assertEqual(self.run_job([], SYNCBN_LAUNCHER="ssh"), 2)
        self.assertIn("'ssh', wanted srun or mpirun", self.stderr)


if __name__ == "__main__":
    unittest.main()
