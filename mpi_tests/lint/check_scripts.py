#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""check_scripts.py ROOT: all shell scripts (told by their first line, or named .sh) have bash's syntax and, where shellcheck
is installed, none of its warnings. Prints what is wrong, exits with 1 if there is anything."""
import pathlib
import shutil
import subprocess
import sys

FOLDERS = (".ci", "scripts", "mpi_tests")
SECONDS = 120


def is_shell(path: pathlib.Path) -> bool:
    with path.open("rb") as file:
        first = file.readline(100)
    return path.suffix == ".sh" or (first.startswith(b"#!") and (b"bash" in first or first.rstrip().endswith(b"/sh")))


def complaints(root: pathlib.Path, command: list[str], scripts: list[pathlib.Path]) -> list[str]:
    result = subprocess.run([*command, *map(str, scripts)], cwd=root, capture_output=True, text=True, timeout=SECONDS,
                            check=False)
    return [] if result.returncode == 0 else [result.stdout + result.stderr]


def main() -> int:
    root = pathlib.Path(sys.argv[1])
    files = sorted(path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file())
    scripts = [path.relative_to(root) for path in files if is_shell(path)]
    found = [text for script in scripts for text in complaints(root, ["bash", "-n"], [script])]
    shellcheck = shutil.which("shellcheck")
    if shellcheck and scripts:
        found += complaints(root, [shellcheck, "-x", "-S", "warning"], scripts)
    for text in found:
        print(text)
    print(f"{len(scripts)} scripts, {'with' if shellcheck else 'without'} shellcheck: {'failed' if found else 'passed'}")
    return 1 if found or not scripts else 0


if __name__ == "__main__":
    sys.exit(main())
