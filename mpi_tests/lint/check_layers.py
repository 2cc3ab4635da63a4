#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""check_layers.py ROOT: keeps the layers of the source tree apart. Prints one line a finding, exits with 1 if there is any.

    cli, train -> include/ -> layer -> statistics, kernels, comm (siblings: they never see each other)
"""
import pathlib
import re
import sys
from typing import Iterator, NamedTuple

LAYERS = ("statistics", "kernels", "comm", "layer", "capi", "checkpoint", "torch", "python", "train", "cli", "examples")
SIBLINGS = ("statistics", "kernels", "comm")
LIBRARY = SIBLINGS + ("layer",)

# Which folders of src/ a folder may include, and link, besides itself. Everybody may include public headers, but see
# PUBLIC_HEADERS_NOT_FOR.
MAY_USE = {
    "statistics": (), "kernels": (), "comm": (), "layer": SIBLINGS,
    "capi": (), "checkpoint": (), "torch": (), "python": (), "train": (), "cli": ("train",), "examples": (),
}
# What brings MPI along is not for layers without MPI; comm has never heard of batch norm.
NEEDS_MPI = ("communicator.hpp", "batch_norm.hpp", "checkpoint.hpp", "syncbn.hpp")
PUBLIC_HEADERS_NOT_FOR = {
    "statistics": NEEDS_MPI + ("eigen.hpp", "eigen_tensor.hpp"),
    "kernels": NEEDS_MPI + ("eigen.hpp", "eigen_tensor.hpp"),
    "comm": ("batch_norm.hpp", "syncbn.hpp", "eigen.hpp", "eigen_tensor.hpp"),
    "layer": ("syncbn.hpp", "eigen.hpp", "eigen_tensor.hpp"),
    "capi": ("eigen.hpp", "eigen_tensor.hpp"),
}

SOURCE_SUFFIXES = (".hpp", ".cpp", ".h", ".c", ".inl")
HEADER_SUFFIXES = (".hpp", ".h", ".inl")
SIMD_HEADERS = re.compile(r"hwy/|[a-z]*intrin\.h$|arm_(neon|sve)\.h$")
# PyTorch's, whose folder has the name of ours; and the public headers that need more than the library.
PYTORCH_HEADERS = re.compile(r"torch/(torch|library|custom_class)\.h$|torch/csrc/")
EIGEN_HEADERS = re.compile(r"(unsupported/)?Eigen/|eigen3/")
PRINTS_OR_EXITS = re.compile(
    r"\bstd::(cout|cerr|clog)\b|\b(v?f?printf|puts|fputs|putchar|putc|fputc|fwrite|perror)\s*\("
    r"|\b(_?exit|_Exit|quick_exit|abort|terminate)\s*\(")
OWNS_MPI = re.compile(r"\bP?MPI_(Init|Init_thread|Finalize|Abort)\s*\(|\bMPI_COMM_WORLD\b")
FLOATING_POINT = re.compile(
    r"-f?fast-math|-Ofast|-funsafe-math|-fassociative-math|-freciprocal-math|-ffinite-math|-ffp-contract=(fast|on)"
    r"|-m(arch|tune|cpu)=native|/fp:fast")
FLOATING_POINT_PRAGMA = re.compile(r"#\s*pragma.*(fast-math|FP_CONTRACT\s+ON|float_control|fp\s+contract)|__attribute__.*optimize")


class Finding(NamedTuple):
    rule: str
    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: [{self.rule}] {self.text}"


class File:
    """A source file without its comments and string literals; line numbers stay."""

    def __init__(self, root: pathlib.Path, path: pathlib.Path):
        self.root = root
        self.absolute = path
        self.path = path.relative_to(root)
        self.raw = path.read_text(encoding="utf-8", errors="replace")
        self.code = without_comments_and_strings(self.raw)
        parts = self.path.parts
        self.layer = parts[1] if parts[0] == "src" and len(parts) > 2 else None
        self.is_public = parts[0] == "include"
        self.is_test = parts[0] == "mpi_tests"
        self.is_header = path.suffix in HEADER_SUFFIXES

    def includes(self) -> Iterator[tuple[int, str]]:
        # From a text with its strings, but without its comments: a quoted include looks like a string.
        for number, line in enumerate(without_comments(self.raw).splitlines(), 1):
            match = re.match(r"\s*#\s*include(?:_next)?\s*[<\"]([^>\"]+)[>\"]", line)
            if match:
                yield number, match[1]

    def matches(self, pattern: re.Pattern) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(self.code.splitlines(), 1):
            match = pattern.search(line)
            if match:
                yield number, match[0].strip()

    def finding(self, rule: str, line: int, text: str) -> Finding:
        return Finding(rule, self.path.as_posix(), line, text)


_TOKENS = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<raw>R\"(?P<tag>[^(\s]*)\(.*?\)(?P=tag)\")"
    r"|(?P<string>\"(?:\\.|[^\"\\\n])*\"|(?<![0-9a-zA-Z])'(?:\\.|[^'\\\n])+')", re.DOTALL)


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def without_comments(text: str) -> str:
    return _TOKENS.sub(lambda m: _blank(m[0]) if m["comment"] else m[0], text)


def without_comments_and_strings(text: str) -> str:
    return _TOKENS.sub(lambda m: _blank(m[0]), text)


def layer_of_include(file: File, include: str) -> str | None:
    """The folder of src/ that an include reaches into; None for public, system and other headers."""
    if PYTORCH_HEADERS.match(include):
        return None
    beside = (file.absolute.parent / include).resolve()
    source = (file.root / "src").resolve()
    if beside.is_file():
        return beside.relative_to(source).parts[0] if beside.is_relative_to(source) else None
    parts = [part for part in pathlib.PurePosixPath(include).parts if part not in ("..", ".", "src")]
    if len(parts) > 1:
        return parts[0] if parts[0] in LAYERS else None
    if "/" in include or include.startswith("syncbn/"):
        return None
    # A bare name that is not beside the file: found through somebody's include path.
    return next((layer for layer in LAYERS if (source / layer / include).is_file()), None)


def check_arrows(file: File) -> Iterator[Finding]:
    """siblings never include each other; train and cli include public headers and their own; nobody looks up"""
    for line, include in file.includes():
        target = layer_of_include(file, include)
        if file.is_public and target is not None:
            yield file.finding("arrows", line, f"a public header includes src/{target} ({include})")
        if file.layer is None:
            continue
        if target is not None and target != file.layer and target not in MAY_USE.get(file.layer, ()):
            yield file.finding("arrows", line, f"src/{file.layer} includes src/{target} ({include})")
        name = include.removeprefix("syncbn/")
        if name != include and name in PUBLIC_HEADERS_NOT_FOR.get(file.layer, ()):
            yield file.finding("arrows", line, f"src/{file.layer} includes {include}, which is not for it")


def check_mpi(file: File) -> Iterator[Finding]:
    """mpi.h only in communicator.hpp, comm, train, cli, the examples and the tests; no MPI calls in layers without it"""
    allowed = (file.is_test or file.layer in ("comm", "train", "cli", "examples")
               or file.path.as_posix() == "include/syncbn/communicator.hpp")
    for line, include in file.includes():
        if include in ("mpi.h", "mpi-ext.h") and not allowed:
            yield file.finding("mpi", line, f"{include} is included here")
    if file.layer in ("statistics", "kernels", "layer"):
        for line, text in file.matches(re.compile(r"\bP?MPIX?_[A-Z]\w*")):
            yield file.finding("mpi", line, f"{text} in src/{file.layer}")


def check_simd(file: File) -> Iterator[Finding]:
    """Highway and intrinsics only in src/kernels"""
    for line, include in file.includes():
        if SIMD_HEADERS.match(include) and file.layer != "kernels":
            yield file.finding("simd", line, f"{include} outside src/kernels")


def check_eigen(file: File) -> Iterator[Finding]:
    """no Eigen beside SIMD code, nor anywhere in the library; only its public headers eigen.hpp and eigen_tensor.hpp"""
    forbidden = (file.layer in LIBRARY + ("capi",)
                 or file.is_public and not re.fullmatch(r"include/syncbn/eigen(_tensor)?\.hpp", file.path.as_posix()))
    if not forbidden:
        return
    for line, include in file.includes():
        if EIGEN_HEADERS.match(include):
            yield file.finding("eigen", line, f"{include} is included here")
    for line, text in file.matches(re.compile(r"\bEigen::\w*")):
        yield file.finding("eigen", line, f"{text} is used here")


def check_quiet(file: File) -> Iterator[Finding]:
    """the library never prints, never exits, and leaves MPI's life and MPI_COMM_WORLD to the program"""
    if file.layer not in LIBRARY and not file.is_public:
        return
    for line, text in file.matches(PRINTS_OR_EXITS):
        yield file.finding("quiet", line, f"{text} in the library")
    for line, text in file.matches(OWNS_MPI):
        yield file.finding("quiet", line, f"{text} in the library")


def check_using(file: File) -> Iterator[Finding]:
    """no `using namespace` in headers"""
    if file.is_header:
        for line, text in file.matches(re.compile(r"\busing\s+namespace\b.*")):
            yield file.finding("using", line, text)


def check_pragmas(file: File) -> Iterator[Finding]:
    """no pragma or attribute that lets the compiler change floating-point results"""
    for line, text in file.matches(FLOATING_POINT_PRAGMA):
        yield file.finding("floating-point", line, text)


def check_licence(file: File) -> Iterator[Finding]:
    """every source says its licence in its first line"""
    if not file.raw.startswith("// SPDX-License-Identifier: MIT\n"):
        yield file.finding("licence", 1, "the first line is not `// SPDX-License-Identifier: MIT`")


SOURCE_CHECKS = (check_arrows, check_mpi, check_simd, check_eigen, check_quiet, check_using, check_pragmas, check_licence)


def check_cmake(root: pathlib.Path, path: pathlib.Path) -> Iterator[Finding]:
    """CMake files: no flags that change floating-point results; no layer links what it may not include"""
    relative = path.relative_to(root)
    layer = relative.parts[1] if relative.parts[0] == "src" and len(relative.parts) > 2 else None
    # A line continued from a `\"...#...\"` string does not occur in CMake code here: # begins a comment.
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        code = line.split("#", 1)[0]
        match = FLOATING_POINT.search(code)
        if match:
            yield Finding("floating-point", relative.as_posix(), number, f"{match[0]} is set here")
        if layer is None:
            continue
        for target in re.findall(r"syncbn_([a-z]+)\b|(?:\.\.|/src)/([a-z]+)\b", code):
            name = target[0] or target[1]
            if name in LAYERS and name != layer and name not in MAY_USE.get(layer, ()):
                yield Finding("arrows", relative.as_posix(), number, f"src/{layer} links or reads src/{name}")
        if layer in SIBLINGS and re.search(r"\bsyncbn::syncbn\b|target_link_libraries\(.*\bsyncbn\b(?!_)", code):
            yield Finding("arrows", relative.as_posix(), number, f"src/{layer} links the whole library")


def check_tree(root: pathlib.Path) -> list[Finding]:
    findings: list[Finding] = []
    sources = 0
    for top in ("include", "src", "mpi_tests"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in SOURCE_SUFFIXES and path.is_file():
                sources += 1
                file = File(root, path)
                for check in SOURCE_CHECKS:
                    findings.extend(check(file))
    if sources == 0:
        findings.append(Finding("tree", str(root), 0, "no sources under include/, src/, mpi_tests/"))
    cmake = [root / "CMakeLists.txt"]
    for top in ("src", "mpi_tests", "scripts"):
        cmake += sorted((root / top).rglob("CMakeLists.txt")) + sorted((root / top).rglob("*.cmake"))
    for path in cmake:
        if path.is_file():
            findings.extend(check_cmake(root, path))
    return findings


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    findings = check_tree(pathlib.Path(sys.argv[1]).resolve())
    for finding in findings:
        print(finding)
    print(f"{len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
