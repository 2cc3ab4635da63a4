#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""check_scripts.py refuses what it should."""
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

CHECK = pathlib.Path(__file__).parent / "check_scripts.py"
GOOD = "#!/usr/bin/env bash\necho \"$1\"\n"


class CheckScriptsTest(unittest.TestCase):
    def exit_code(self, scripts: dict[str, str]) -> int:
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "scripts").mkdir()
            for name, text in scripts.items():
                (pathlib.Path(folder) / "scripts" / name).write_text(text)
            return subprocess.run([sys.executable, "-B", CHECK, folder], capture_output=True, timeout=120,
                                  check=False).returncode

    def test_good_script(self):
        self.assertEqual(self.exit_code({"run": GOOD, "job.slurm": GOOD, "table.py": "if if\n"}), 0)

    def test_no_scripts(self):
        self.assertEqual(self.exit_code({}), 1)

    def test_wrong_syntax(self):
        for name in ("run", "job.slurm", "more.sh"):
            self.assertEqual(self.exit_code({"good": GOOD, name: "#!/usr/bin/env bash\nif true; then\n"}), 1, name)

    @unittest.skipUnless(shutil.which("shellcheck"), "no shellcheck here")
    def test_what_shellcheck_warns_of(self):
        self.assertEqual(self.exit_code({"run": "#!/usr/bin/env bash\nunused=1\ncd /somewhere\n"}), 1)


if __name__ == "__main__":
    unittest.main()
