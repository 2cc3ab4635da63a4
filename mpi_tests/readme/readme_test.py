# SPDX-License-Identifier: MIT
"""Holds the README to its word: its C++ block is example.cpp, which prints what stands below it; its links and paths exist."""
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(os.environ["SYNCBN_SOURCE_DIR"])
README = (ROOT / "README.md").read_text()
EXAMPLE_RANKS = 3


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def check_example():
    licence, code = (ROOT / "mpi_tests/readme/example.cpp").read_text().split("\n", 1)
    if code not in blocks("cpp"):
        return ["no C++ block of the README is mpi_tests/readme/example.cpp, to the letter"]
    command = [*os.environ["SYNCBN_MPIRUN"].split(), "-n", str(EXAMPLE_RANKS), os.environ["SYNCBN_README_EXAMPLE"]]
    printed = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if printed.returncode != 0:
        return [f"the example ended with {printed.returncode}: {printed.stderr}"]
    if printed.stdout not in blocks("text"):
        return [f"no text block of the README is what the example prints on {EXAMPLE_RANKS} ranks:\n{printed.stdout}"]
    return []


def check_links():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    return [f"the README links to {link}, which does not exist" for link in links if not (ROOT / link).exists()]


def check_commands():
    """Scripts that the README tells to run exist and can be run."""
    scripts = set(re.findall(r"scripts/[\w./-]+", README))
    return [f"the README names {script}, which cannot be run" for script in sorted(scripts)
            if not (ROOT / script).is_dir() and not os.access(ROOT / script, os.X_OK)]


problems = check_example() + check_links() + check_commands()
for problem in problems:
    print(problem)
sys.exit(1 if problems else 0)
