# SPDX-License-Identifier: MIT
"""syncbn normalize on bad files: the right exit code, one sentence that names the file, and nothing left behind."""
import os
import struct
import tempfile
import unittest
from pathlib import Path

import tool
from tool import RANKS

import numpy as np

GOOD = np.arange(24, dtype="<f4").reshape(6, 4)


def npy(header, data=b"", version=(1, 0), magic=b"\x93NUMPY", length=None):
    """The bytes of a .npy file with this header text, whatever sense that makes."""
    header = header.encode() if isinstance(header, str) else header
    width = "<H" if version[0] == 1 else "<I"
    return magic + bytes(version) + struct.pack(width, len(header) if length is None else length) + header + data


def dict_text(descr="'<f4'", order="False", shape="(6, 4)"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


DATA = GOOD.tobytes()

# name: (bytes of x.npy, words that the sentence must have)
BAD_INPUTS = {
    "empty file": (b"", ["not a .npy file"]),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", ["not a .npy file"]),
    "zip": (b"PK\x03\x04" + bytes(60), ["not a .npy file"]),
    "magic only": (b"\x93NUMPY", ["not a .npy file"]),
    "wrong magic": (npy(dict_text(), DATA, magic=b"\x93NUMPX"), ["not a .npy file"]),
    "version 4": (npy(dict_text(), DATA, version=(4, 0)), ["version 4.0", "1.0"]),
    "version 1.1": (npy(dict_text(), DATA, version=(1, 1)), ["version 1.1"]),
    "version 0": (npy(dict_text(), DATA, version=(0, 0)), ["version 0.0"]),
    "ends in length": (b"\x93NUMPY\x01\x00\x40", ["truncated"]),
    "ends in header": (npy(dict_text()[:20], length=118), ["truncated"]),
    "length beyond the file": (npy(dict_text(), DATA, length=60000), ["truncated"]),
    "length of 4 GB": (npy(dict_text(), DATA, version=(2, 0), length=0xFFFFFFFF), ["4294967295", "1048576"]),
    "no header": (npy("", DATA), ["malformed"]),
    "blank header": (npy(" " * 100 + "\n", DATA), ["malformed"]),
    "binary header": (npy(bytes(range(128, 228)), DATA), ["malformed"]),
    "not a dict": (npy("['<f4', False, (6, 4)]\n", DATA), ["malformed"]),
    "key missing": (npy("{'descr': '<f4', 'shape': (6, 4)}\n", DATA), ["malformed"]),
    "key twice": (npy("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (6, 4)}", DATA), ["malformed"]),
    "unknown key": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (6, 4), 'x': 1}", DATA), ["malformed"]),
    "no closing brace": (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (6, 4)", DATA), ["malformed"]),
    "text after the dict": (npy(dict_text() + "import os", DATA), ["malformed"]),
    "code for a shape": (npy(dict_text(shape="__import__('os').system('true')"), DATA), ["malformed"]),
    "sum for an extent": (npy(dict_text(shape="(3+3, 4)"), DATA), ["malformed"]),
    "open string": (npy("{'descr", DATA), ["malformed"]),
    "brackets without end": (npy("{'shape': " + "(" * 60000, DATA), ["malformed"]),
    "shape is a list": (npy(dict_text(shape="[6, 4]"), DATA), ["malformed"]),
    "shape is a number": (npy(dict_text(shape="(24)"), DATA), ["malformed"]),
    "float extent": (npy(dict_text(shape="(6.0, 4)"), DATA), ["malformed"]),
    "order is a number": (npy(dict_text(order="0"), DATA), ["malformed"]),
    "negative extent": (npy(dict_text(shape="(-6, 4)"), DATA), ["negative"]),
    "two negative extents": (npy(dict_text(shape="(-6, -4)"), DATA), ["negative"]),
    "extent of 2^64": (npy(dict_text(shape="(18446744073709551616, 4)"), DATA), ["64 bits"]),
    "product of 2^64": (npy(dict_text(shape="(4294967296, 4294967296)"), DATA), ["64 bits"]),
    "product of 2^64 times 0": (npy(dict_text(shape="(0, 4294967296, 4294967296)")), ["64 bits"]),
    "2^61 numbers": (npy(dict_text(shape="(1073741824, 1073741824)"), DATA), ["truncated", "96 bytes"]),
    "2^40 channels of nothing": (npy(dict_text(shape="(0, 1099511627776)")), ["channels"]),
    "no channels": (npy(dict_text(shape="(6, 0)")), ["channel"]),
    "0-d": (npy(dict_text(shape="()"), DATA[:4]), ["()", "2 or more dimensions"]),
    "1-d": (npy(dict_text(shape="(24,)"), DATA), ["(24,)", "2 or more dimensions"]),
    "one byte less": (npy(dict_text(), DATA[:-1]), ["truncated", "95", "96"]),
    "no data": (npy(dict_text()), ["truncated", "0 bytes", "96"]),
    "one byte more": (npy(dict_text(), DATA + b"\0"), ["trailing", "97", "96"]),
    "fortran order": (npy(dict_text(order="True"), DATA), ["Fortran", "ascontiguousarray"]),
    "half of the bytes": (npy(dict_text(descr="'<f2'"), DATA), ["trailing", "96 bytes", "48 for (6, 4) f16"]),
    "big-endian half": (npy(dict_text(descr="'>f2'"), DATA), [">f2", "big-endian", "'<f2'"]),
    "big-endian": (npy(dict_text(descr="'>f4'"), DATA), [">f4", "big-endian"]),
    "int64": (npy(dict_text(descr="'<i8'"), DATA), ["<i8"]),
    "bool": (npy(dict_text(descr="'|b1'"), DATA), ["|b1"]),
    "object": (npy(dict_text(descr="'|O'"), DATA), ["|O"]),
    "complex": (npy(dict_text(descr="'<c8'"), DATA), ["<c8"]),
    "long double": (npy(dict_text(descr="'<f16'"), DATA), ["<f16"]),
    "structured": (npy(dict_text(descr="[('a', '<f4'), ('b', '<f4')]"), DATA), ["structured"]),
    "dtype of 60 kB": (npy(dict_text(descr="'<f4" + "x" * 60000 + "'"), DATA), ["'<f4" + "x" * 37 + "...'", "wanted"]),
    "shape of 500 axes": (npy(dict_text(shape="(" + "1, " * 499 + "2)"), DATA), ["(1, 1, 1, 1, ... 500 axes)", "96 bytes"]),
    "control characters in the dtype": (npy(dict_text(descr="'\x1b[31m\n'"), DATA), ["dtype"]),
}


# A launcher takes a second to end a job that fails: without one all are tried, with one those that take different ways.
BAD_INPUTS_UNDER_MPIRUN = ["empty file", "length of 4 GB", "code for a shape", "2^40 channels of nothing", "one byte less"]


class HostileFiles(unittest.TestCase):
    def setUp(self):
        self.holder = tempfile.TemporaryDirectory()
        self.addCleanup(self.holder.cleanup)
        self.folder = Path(self.holder.name)
        self.out = self.folder / "made" / "out"
        np.save(self.folder / "x.npy", GOOD)

    def refused(self, arguments, words, code=3, shell_prefix=None):
        """`normalize --input x.npy ARGUMENTS` must fail with `code` and one sentence that has all words."""
        before = sorted(self.folder.rglob("*"))
        outcome = tool.run(["normalize", "--input", self.folder / "x.npy", "--out", self.out, *arguments],
                           launcher=RANKS > 1, shell_prefix=shell_prefix)
        self.assertEqual(outcome.code, code, outcome)
        self.assertEqual(len(outcome.complaints), 1, outcome)
        self.assertTrue(outcome.complaints[0].isprintable(), outcome)
        self.assertLess(len(outcome.complaints[0]), 400, outcome)
        for word in ["syncbn normalize: ", *words]:
            self.assertIn(word, outcome.complaints[0], outcome)
        self.assertEqual(outcome.stdout, "", outcome)
        self.assertEqual(sorted(self.folder.rglob("*")), before, outcome)

    def save(self, name, values):
        np.save(self.folder / name, np.asarray(values))
        return self.folder / name

    def test_inputs(self):
        for name in BAD_INPUTS if RANKS == 1 else BAD_INPUTS_UNDER_MPIRUN:
            content, words = BAD_INPUTS[name]
            with self.subTest(name):
                (self.folder / "x.npy").write_bytes(content)
                self.refused([], ["x.npy", *words])

    def test_gradient_and_parameters_are_read_as_carefully(self):
        bad = self.folder / "bad.npy"
        bad.write_bytes(npy(dict_text(), DATA[:-1]))
        for option in ["--grad-output", "--residual", "--gamma", "--beta", "--running-mean",
                       "--running-var"][:6 if RANKS == 1 else 3]:
            with self.subTest(option):
                self.refused([option, bad], ["bad.npy", "truncated"])

    def test_things_that_are_not_files(self):
        self.refused(["--gamma", self.folder / "absent.npy"], ["absent.npy", "No such file"])
        self.refused(["--gamma", self.folder], ["folder", "wanted a file"])
        self.refused(["--gamma", "/dev/zero"], ["/dev/zero", "wanted a file"])
        os.mkfifo(self.folder / "pipe.npy")
        self.refused(["--gamma", self.folder / "pipe.npy"], ["pipe.npy", "wanted a file"])
        self.refused(["--grad-output", self.folder / "absent.npy"], ["absent.npy", "No such file"])

    @unittest.skipIf(os.geteuid() == 0, "root may read everything")
    def test_unreadable_file(self):
        (self.folder / "x.npy").chmod(0)
        self.refused([], ["x.npy", "Permission denied"])

    def test_shapes_that_do_not_fit(self):
        self.refused(["--grad-output", self.save("dy.npy", GOOD.reshape(4, 6))], ["dy.npy", "(4, 6)", "(6, 4)"])
        self.refused(["--grad-output", self.save("dy.npy", GOOD.astype("f8"))], ["dy.npy", "f64", "f32"])
        self.refused(["--residual", self.save("z.npy", GOOD[:5])], ["z.npy", "(5, 4)", "(6, 4)", "as the input"])
        self.refused(["--residual", self.save("z.npy", GOOD.astype("f2"))], ["z.npy", "f16", "f32"])
        self.refused(["--gamma", self.save("g.npy", np.ones(3))], ["g.npy", "(3,)", "(4,)"])
        self.refused(["--gamma", self.save("g.npy", np.ones((1, 4)))], ["g.npy", "(1, 4)", "(4,)"])
        self.refused(["--gamma", self.save("g.npy", 1.0)], ["g.npy", "()", "(4,)"])

    def test_numbers_that_are_not_finite(self):
        for value, text in [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")][:3 if RANKS == 1 else 1]:
            x = GOOD.copy()
            x[4, 1] = value
            x[5, 3] = np.inf
            with self.subTest(text):
                self.save("x.npy", x)
                self.refused([], ["x.npy", f"{text} at [4, 1]"])
                self.save("x.npy", GOOD)
                self.refused(["--grad-output", self.save("dy.npy", x)], ["dy.npy", f"{text} at [4, 1]"])
                self.refused(["--residual", self.save("z.npy", x)], ["z.npy", f"{text} at [4, 1]"])
                self.refused(["--beta", self.save("b.npy", x[4])], ["b.npy", f"{text} at [1]"])

    def test_parameters_out_of_range(self):
        self.refused(["--running-var", self.save("rv.npy", [1, 0, -1e-9, 1.0])], ["rv.npy", "[2]", ">= 0"])
        self.refused(["--gamma", self.save("g.npy", [1, 1, 1, 1e300])], ["g.npy", "1e+300", "[3]", "f32"])

    def test_shards_that_do_not_fit(self):
        self.refused(["--shards", ",".join(["6"] + ["0"] * RANKS)], ["--shards", f"{RANKS + 1} sizes"], code=2)
        self.refused(["--shards", ",".join(["5"] + ["0"] * (RANKS - 1))], ["--shards", "less", "6 rows"], code=2)
        self.refused(["--shards", ",".join(["7"] + ["0"] * (RANKS - 1))], ["--shards", "more", "6 rows"], code=2)
        many = str(2**63 - 1)
        self.refused(["--shards", ",".join([many] * RANKS)], ["--shards", "more", "6 rows"], code=2)
        for text in [] if RANKS > 1 else ["", "6,", "six", "6.0", "-1,7", "6;0", " 6", "9223372036854775808"]:
            with self.subTest(text):
                self.refused([f"--shards={text}"], ["--shards"], code=2)

    def test_output_folder_that_cannot_be(self):
        self.out = self.folder / "x.npy"
        self.refused([], ["x.npy", "not a folder"])
        self.out = self.folder / "x.npy" / "out"
        self.refused([], ["x.npy/out"])
        self.out = Path("/proc/syncbn-out")
        self.refused([], ["/proc/syncbn-out"])

    def test_output_name_that_is_a_folder(self):
        self.out = self.folder
        (self.folder / "running_var.npy").mkdir()
        self.refused([], ["running_var.npy", "is a folder"])

    def test_disk_full(self):
        """A file size limit of 16 MiB stands for the disk; the last rows of 24 MB do not fit."""
        self.save("x.npy", np.ones((6, 500000)))
        self.refused([], ["y.npy", "File too large"], shell_prefix="trap '' XFSZ; ulimit -f 16384")


if __name__ == "__main__":
    unittest.main()
