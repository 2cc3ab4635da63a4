# SPDX-License-Identifier: MIT
"""Builds the shared libraries with CMake and puts them into the package; the operators for PyTorch where this Python has PyTorch
(pip install --no-build-isolation). SYNCBN_LIBRARY_DIR: take them from a build tree's src folder. CMAKE_ARGS: more options for CMake."""
import importlib.util
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

ROOT = pathlib.Path(__file__).resolve().parents[2]


def built() -> pathlib.Path:
    """The src folder of a build tree that has the libraries."""
    folder = pathlib.Path(__file__).resolve().parent / "build" / "cmake"
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DSYNCBN_BUILD_TOOL=OFF", "-DSYNCBN_BUILD_TESTS=OFF"]
    targets = ["syncbn_shared"]
    if importlib.util.find_spec("torch") is not None:
        options += ["-DSYNCBN_BUILD_TORCH=ON", f"-DSYNCBN_TORCH_PYTHON={sys.executable}"]
        targets.append("syncbn_torch")
    options += shlex.split(os.environ.get("CMAKE_ARGS", ""))
    subprocess.run(["cmake", "-S", str(ROOT), "-B", str(folder), *options], check=True)
    subprocess.run(["cmake", "--build", str(folder), "--parallel", str(os.cpu_count() or 1), "--target", *targets], check=True)
    return folder / "src"


class BuildWithLibraries(build_py):
    def run(self):
        super().run()
        source = pathlib.Path(os.environ.get("SYNCBN_LIBRARY_DIR") or built())
        package = pathlib.Path(self.build_lib) / "syncbn" / "lib"
        (package / "torch").mkdir(parents=True, exist_ok=True)
        # Under the name that other libraries ask for; packages have no symbolic links.
        library = (source / "libsyncbn.so").resolve()
        shutil.copy2(library, package / ".".join(library.name.split(".")[:-1]))
        operators = source / "torch" / "libsyncbn_torch.so"
        if operators.exists():
            shutil.copy2(operators, package / "torch")


class WithLibraries(Distribution):
    def has_ext_modules(self):
        return True


setup(cmdclass={"build_py": BuildWithLibraries}, distclass=WithLibraries)
