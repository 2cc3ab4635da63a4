#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Installs the build, moves the install tree, and builds and runs programs that use it: CMake with C++17 and C++20, shared and
static, in C alone, pkg-config with C99, the MPI compiler wrapper alone. All print the same bits, on 1 and 3 ranks."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

ENV = os.environ
SOURCE = pathlib.Path(ENV["SYNCBN_SOURCE_DIR"]) / "mpi_tests" / "consumer"
CMAKE = ENV["SYNCBN_CMAKE"]
PREFIX = pathlib.Path("moved").resolve()
SECONDS = 120
BITS = set()


def run(*command, **environment):
    return subprocess.run([str(c) for c in command], env={**ENV, **environment}, capture_output=True, text=True,
                          timeout=SECONDS, check=False)


def must(*command, **environment):
    result = run(*command, **environment)
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")
    return result.stdout


def configure(source, folder, *options, wrapper=None):
    shutil.rmtree(folder, ignore_errors=True)
    return run(CMAKE, "-S", source, "-B", folder, f"-DCMAKE_PREFIX_PATH={PREFIX}", f"-DMPI_C_COMPILER={wrapper or ENV['SYNCBN_MPICC']}",
               f"-DMPI_CXX_COMPILER={re.sub('mpicc', 'mpicxx', wrapper or ENV['SYNCBN_MPICC'])}",
               f"-DCMAKE_CXX_COMPILER={ENV['SYNCBN_CXX']}", f"-DCMAKE_C_COMPILER={ENV['SYNCBN_CC']}", *options)


def setUpModule():
    shutil.rmtree("installed", ignore_errors=True)
    shutil.rmtree(PREFIX, ignore_errors=True)
    must(CMAKE, "--install", ENV["SYNCBN_BUILD_DIR"], "--prefix", pathlib.Path("installed").resolve())
    pathlib.Path("installed").rename(PREFIX)


class Consumer(unittest.TestCase):
    def runs(self, program):
        library = str(next(PREFIX.rglob("libsyncbn.so")).parent)
        for ranks in ("1", "3"):
            out = must(*ENV["SYNCBN_MPIRUN"].split(), "-n", ranks, program, LD_LIBRARY_PATH=library)
            self.assertRegex(out, r"^[0-9a-f]{8} running_mean \S+\n$")
            BITS.add(out)
            self.assertEqual(len(BITS), 1, BITS)

    def built_with_cmake(self, source, folder, *options):
        result = configure(SOURCE / source, folder, *options)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        must(CMAKE, "--build", folder)
        self.runs(pathlib.Path(folder).resolve() / "consumer")

    def test_cmake_cxx17_shared(self):
        self.built_with_cmake("cpp", "cxx17", "-DCMAKE_CXX_STANDARD=17")
        self.assertIn("libsyncbn.so.", must("readelf", "-d", "cxx17/consumer"))

    def test_cmake_cxx20_static(self):
        self.built_with_cmake("cpp", "cxx20", "-DCMAKE_CXX_STANDARD=20", "-DBUILD_SHARED_LIBS=OFF")
        self.assertNotIn("libsyncbn", must("readelf", "-d", "cxx20/consumer"))

    def test_cmake_c(self):
        self.built_with_cmake("c", "c")

    def test_pkg_config_c99(self):
        if shutil.which("pkg-config") is None:
            self.skipTest("pkg-config is not installed")
        path = str(next(PREFIX.rglob("syncbn.pc")).parent)
        flags = must("pkg-config", "--cflags", "--libs", "syncbn", PKG_CONFIG_PATH=path).split()
        must(ENV["SYNCBN_MPICC"], "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", SOURCE / "c" / "main.c", *flags, "-o", "c99")
        self.runs(pathlib.Path("c99").resolve())

    def test_compiler_wrapper_alone(self):
        wrapper = re.sub("mpicc", "mpicxx", ENV["SYNCBN_MPICC"])
        library = next(PREFIX.rglob("libsyncbn.so")).parent
        must(wrapper, "-std=c++17", SOURCE / "cpp" / "main.cpp", f"-I{PREFIX / 'include'}", f"-L{library}", "-lsyncbn", "-o", "plain")
        self.runs(pathlib.Path("plain").resolve())

    def test_tree_as_a_subdirectory(self):
        result = configure(SOURCE / "subdirectory", "subdirectory", f"-DSYNCBN_SOURCE_DIR={ENV['SYNCBN_SOURCE_DIR']}", "-G", "Ninja")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        targets = must("ninja", "-C", "subdirectory", "-t", "targets", "all")
        self.assertNotIn("syncbn_tool", targets)  # neither program nor tests of ours, nor their dependencies
        must("ninja", "-C", "subdirectory", next(t.split(":")[0] for t in targets.splitlines() if "main.cpp.o:" in t))

    def test_other_mpi_is_refused(self):
        other = ENV.get("SYNCBN_OTHER_MPICC", "")
        if not os.path.exists(other) or ENV["SYNCBN_MPI_IS_OPEN_MPI"] != "TRUE":
            self.skipTest("there is no second MPI library here")
        for source in ("c", "cpp"):
            result = configure(SOURCE / source, "other", wrapper=other)
            self.assertNotEqual(result.returncode, 0)
            self.assertRegex(" ".join(result.stderr.split()), "built with Open MPI [0-9]+, the MPI found here is MPICH")

    def test_library_shows_its_interface_and_nothing_else(self):
        lines = must("nm", "-DC", "--defined-only", next(PREFIX.rglob("libsyncbn.so"))).splitlines()
        names = [line.split(" ", 2)[2] for line in lines]
        shown = re.compile(r"(typeinfo (name )?for |vtable for )?(syncbn::(BatchNorm|Communicator|DriftLog|DriftProbe|ReproducibleSum|TensorShape|"
                           r"\w*Error)(::|$)|syncbn::instruction_set|syncbn::(save|load)_safetensors|syncbn_\w+$)")
        self.assertEqual([n for n in names if not shown.match(n) or "::Impl" in n], [])
        for kind in ("typeinfo", "typeinfo name", "vtable"):  # what programs need to make, to derive from and to catch
            self.assertIn(f"{kind} for syncbn::DriftLog", names)
            self.assertIn(f"{kind} for syncbn::ShapeError", names)
        declared = set(re.findall(r"\b(syncbn_\w+)\(", (PREFIX / "include/syncbn/syncbn.h").read_text()))
        self.assertEqual({n for n in names if n.startswith("syncbn_")}, declared - {"syncbn_all_gather"})


if __name__ == "__main__":
    sys.exit(0 if unittest.main(exit=False, verbosity=2).result.wasSuccessful() else 1)
