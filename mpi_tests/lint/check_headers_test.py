#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""check_headers_test.py CXX: check_headers.py refuses what it should."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECK = pathlib.Path(__file__).parent / "check_headers.py"
COMPILER = sys.argv.pop() if len(sys.argv) > 1 else "c++"


class CheckHeadersTest(unittest.TestCase):
    def exit_code(self, headers: dict[str, str]) -> int:
        with tempfile.TemporaryDirectory() as folder:
            for name, text in headers.items():
                (pathlib.Path(folder) / name).write_text(text)
            return subprocess.run([sys.executable, "-B", CHECK, folder, "--compiler", COMPILER], capture_output=True,
                                  timeout=300, check=False).returncode

    def test_good_headers(self):
        self.assertEqual(self.exit_code({"a.hpp": "#pragma once\n#include <string>\ninline std::string a() { return {}; }\n",
                                         "b.h": "#ifndef B\n#define B\nint b(void);\n#endif\n"}), 0)

    def test_no_headers(self):
        self.assertEqual(self.exit_code({}), 1)

    def test_needs_another_header(self):
        self.assertEqual(self.exit_code({"a.hpp": "#pragma once\ninline std::string a() { return {}; }\n"}), 1)

    def test_no_include_guard(self):
        self.assertEqual(self.exit_code({"a.hpp": "struct A {};\n"}), 1)

    def test_newer_language(self):
        self.assertEqual(self.exit_code({"a.hpp": "#pragma once\n#include <span>\nstd::span<int> a();\n"}), 1)

    def test_warning(self):
        self.assertEqual(self.exit_code({"a.hpp": "#pragma once\ninline int a(int unused) { return 0; }\n"}), 1)

    def test_c_header_that_needs_cpp(self):
        self.assertEqual(self.exit_code({"a.h": "#pragma once\nnamespace n {}\n"}), 1)


if __name__ == "__main__":
    unittest.main()
