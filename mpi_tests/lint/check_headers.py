#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""check_headers.py INCLUDE_DIR --compiler CXX ... --system-include DIR ... --without HEADER ...: every public header compiles alone, twice
included, as C++17 without a warning (.hpp), and as C99 too (.h). Exits with 1 if one does not."""
import argparse
import pathlib
import subprocess
import sys

WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only")
SECONDS = 120


def compiles(compiler: str, language: str, standard: str, header: str, include: pathlib.Path, options: list[str]) -> str:
    """Empty, or what the compiler said."""
    source = f'#include "{header}"\n#include "{header}"\nint main(void) {{ return 0; }}\n'
    command = [compiler, "-x", language, f"-std={standard}", *WARNINGS, "-I", str(include), *options, "-"]
    result = subprocess.run(command, input=source, capture_output=True, text=True, timeout=SECONDS, check=False)
    return "" if result.returncode == 0 else f"{' '.join(command)}\n{result.stderr}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("include", type=pathlib.Path)
    parser.add_argument("--compiler", action="append", required=True)
    parser.add_argument("--system-include", action="append", default=[])
    parser.add_argument("--without", action="append", default=[], help="needs what is not there")
    arguments = parser.parse_args()

    options = ["-DOMPI_SKIP_MPICXX", "-DMPICH_SKIP_MPICXX"]
    for folder in arguments.system_include:
        options += ["-isystem", folder]
    headers = sorted(p for p in arguments.include.rglob("*") if p.suffix in (".hpp", ".h") and p.name not in arguments.without)
    tried = failed = 0
    for header in headers:
        name = header.relative_to(arguments.include).as_posix()
        ways = [("c++", "c++17")] + ([("c", "c99")] if header.suffix == ".h" else [])
        for compiler in dict.fromkeys(arguments.compiler):
            for language, standard in ways:
                tried += 1
                message = compiles(compiler, language, standard, name, arguments.include, options)
                if message:
                    failed += 1
                    print(f"{name} does not compile alone as {standard}:\n{message}")
    print(f"{len(headers)} headers, {tried} compilations, {failed} failed")
    return 1 if failed or not headers else 0


if __name__ == "__main__":
    sys.exit(main())
