#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Every rule of check_layers.py can fail: plants one fault at a time in a small clean tree."""
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import check_layers  # noqa: E402

LICENCE = "// SPDX-License-Identifier: MIT\n"

CLEAN = {
    "CMakeLists.txt": "# Never -ffast-math, never -march=native.\nproject(syncbn)\n",
    "include/syncbn/communicator.hpp": "#pragma once\n#include <mpi.h>\n",
    "include/syncbn/error.hpp": "#pragma once\n#include <string>\n",
    "include/syncbn/eigen.hpp": "#pragma once\n#include <Eigen/Core>\n",
    "src/statistics/moments.hpp": "#pragma once\n#include \"syncbn/error.hpp\"\n// std::cout, MPI_Send, Eigen::Map in a comment\n",
    "src/statistics/moments.cpp": "#include \"statistics/moments.hpp\"\nconst char* text = \"std::cout << exit(1)\";\n",
    "src/statistics/CMakeLists.txt": "add_library(syncbn_statistics OBJECT moments.cpp)\ntarget_link_libraries(syncbn_statistics PRIVATE syncbn_flags)\n",
    "src/kernels/kernels.hpp": "#pragma once\n#include <hwy/highway.h>\n#include <immintrin.h>\n",
    "src/kernels/CMakeLists.txt": "add_library(syncbn_kernels OBJECT a.cpp)\n",
    "src/comm/transport.hpp": "#pragma once\n#include <mpi.h>\n",
    "src/comm/transport.cpp": "#include \"comm/transport.hpp\"\n#include \"syncbn/communicator.hpp\"\nvoid f(MPI_Comm c) { MPI_Barrier(c); }\nvoid g(char* s) { snprintf(s, 4, \"a\"); }\n",
    "src/comm/CMakeLists.txt": "target_link_libraries(syncbn_comm PUBLIC syncbn_mpi PRIVATE syncbn_flags)\n",
    "src/layer/batch_norm.cpp": "#include \"comm/transport.hpp\"\n#include \"kernels/kernels.hpp\"\n#include \"statistics/moments.hpp\"\n",
    "src/layer/CMakeLists.txt": "target_link_libraries(syncbn PRIVATE syncbn_statistics syncbn_kernels syncbn_comm)\n",
    "src/train/network.hpp": "#pragma once\n#include <Eigen/Core>\n#include <mpi.h>\n#include \"syncbn/error.hpp\"\n",
    "src/cli/main.cpp": "#include <cstdio>\n#include \"command.hpp\"\n#include \"train/network.hpp\"\nint main() { std::printf(\"%d\", MPI_COMM_WORLD); }\n",
    "src/cli/command.hpp": "#pragma once\n",
    "mpi_tests/layer/a_test.cpp": "#include <mpi.h>\nusing namespace std;\nint n = 1'000; // '\n",
}


class CheckLayersTest(unittest.TestCase):
    def findings(self, changes: dict[str, str]) -> list[check_layers.Finding]:
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder).resolve()
            for name, text in {**CLEAN, **changes}.items():
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                is_source = path.suffix in check_layers.SOURCE_SUFFIXES
                path.write_text((LICENCE if is_source else "") + text)
            return check_layers.check_tree(root)

    def assert_found(self, rule: str, path: str, extra: str) -> None:
        """`extra`, added to the end of `path`, gives one finding: that rule, that file, that line."""
        text = CLEAN.get(path, "")
        found = self.findings({path: text + extra})
        self.assertEqual([(f.rule, f.path) for f in found], [(rule, path)], f"{extra!r} gave {[str(f) for f in found]}")
        first_added = (LICENCE + text if path.endswith((".hpp", ".cpp")) else text).count("\n") + 1
        self.assertGreaterEqual(found[0].line, first_added)

    def test_the_clean_tree_is_clean(self):
        self.assertEqual([str(f) for f in self.findings({})], [])

    def test_an_empty_tree_is_not_clean(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual([f.rule for f in check_layers.check_tree(pathlib.Path(folder))], ["tree"])

    def test_siblings_include_each_other(self):
        self.assert_found("arrows", "src/statistics/moments.cpp", '#include "kernels/kernels.hpp"\n')
        self.assert_found("arrows", "src/statistics/moments.cpp", '#include "../kernels/kernels.hpp"\n')
        self.assert_found("arrows", "src/statistics/moments.cpp", '#include "src/comm/transport.hpp"\n')
        self.assert_found("arrows", "src/kernels/kernels.hpp", '#include "moments.hpp"\n')
        self.assert_found("arrows", "src/comm/transport.cpp", '  #  include <statistics/moments.hpp>\n')

    def test_somebody_looks_up(self):
        self.assert_found("arrows", "src/kernels/kernels.hpp", '#include "layer/check.hpp"\n')
        self.assert_found("arrows", "src/layer/batch_norm.cpp", '#include "cli/command.hpp"\n')
        self.assert_found("arrows", "include/syncbn/error.hpp", '#include "layer/check.hpp"\n')

    def test_clients_include_internal_headers(self):
        self.assert_found("arrows", "src/train/network.hpp", '#include "layer/check.hpp"\n')
        self.assert_found("arrows", "src/train/network.hpp", '#include "cli/command.hpp"\n')
        self.assert_found("arrows", "src/cli/main.cpp", '#include "comm/transport.hpp"\n')

    def test_public_headers_where_they_do_not_belong(self):
        self.assert_found("arrows", "src/statistics/moments.cpp", '#include "syncbn/communicator.hpp"\n')
        self.assert_found("arrows", "src/comm/transport.cpp", '#include "syncbn/batch_norm.hpp"\n')

    def test_mpi_outside_its_places(self):
        self.assert_found("mpi", "src/statistics/moments.hpp", "#include <mpi.h>\n")
        self.assert_found("mpi", "src/layer/batch_norm.cpp", "#include <mpi.h>\n")
        self.assert_found("mpi", "src/capi/capi.cpp", "#include <mpi.h>\n")
        self.assert_found("mpi", "include/syncbn/error.hpp", "#include <mpi.h>\n")
        self.assert_found("mpi", "src/layer/batch_norm.cpp", "void f(MPI_Comm comm);\n")

    def test_simd_outside_kernels(self):
        self.assert_found("simd", "src/statistics/moments.cpp", "#include <immintrin.h>\n")
        self.assert_found("simd", "src/train/network.hpp", "#include <hwy/highway.h>\n")
        self.assert_found("simd", "mpi_tests/layer/a_test.cpp", "#include <emmintrin.h>\n")

    def test_eigen_in_the_library(self):
        for path in ("src/statistics/moments.cpp", "src/kernels/kernels.hpp", "src/comm/transport.cpp",
                     "src/layer/batch_norm.cpp", "src/capi/capi.cpp", "include/syncbn/error.hpp"):
            self.assert_found("eigen", path, "#include <Eigen/Dense>\n")
        self.assert_found("eigen", "src/layer/batch_norm.cpp", "void f(Eigen::MatrixXf x);\n")

    def test_the_library_prints_or_exits(self):
        for code in ('std::cout << 1;', 'std::printf("a");', 'fprintf(stderr, "a");', 'puts("a");', 'exit(1);',
                     'std::abort();', 'std::terminate();', 'MPI_Abort(c, 1);', 'MPI_Finalize ();', 'f(MPI_COMM_WORLD);'):
            self.assert_found("quiet", "src/comm/transport.cpp", f"void h() {{ {code} }}\n")
        self.assert_found("quiet", "src/layer/batch_norm.cpp", "void h() { std::exit(0); }\n")

    def test_using_namespace_in_a_header(self):
        self.assert_found("using", "src/cli/command.hpp", "using namespace std;\n")
        self.assert_found("using", "include/syncbn/error.hpp", "namespace a { using  namespace b; }\n")

    def test_floating_point_flags(self):
        for flag in ("-ffast-math", "-Ofast", "-march=native", "-mtune=native", "-ffp-contract=fast"):
            self.assert_found("floating-point", "CMakeLists.txt", f"add_compile_options({flag})\n")
        self.assert_found("floating-point", "src/kernels/CMakeLists.txt", "set(CMAKE_CXX_FLAGS -ffast-math)\n")
        self.assert_found("floating-point", "scripts/cmake/release.cmake", "set(CMAKE_CXX_FLAGS -march=native)\n")
        self.assert_found("floating-point", "src/layer/batch_norm.cpp", "#pragma STDC FP_CONTRACT ON\n")

    def test_cmake_links_a_sibling(self):
        self.assert_found("arrows", "src/comm/CMakeLists.txt", "target_link_libraries(x syncbn_kernels)\n")
        self.assert_found("arrows", "src/kernels/CMakeLists.txt", "target_link_libraries(syncbn_kernels syncbn::syncbn)\n")
        self.assert_found("arrows", "src/statistics/CMakeLists.txt", "target_include_directories(x ../kernels)\n")
        self.assert_found("arrows", "src/train/CMakeLists.txt", "target_link_libraries(x syncbn_layer)\n")

    def test_missing_licence(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder).resolve()
            (root / "src/layer").mkdir(parents=True)
            (root / "src/layer/a.cpp").write_text("int a;\n")
            self.assertEqual([f.rule for f in check_layers.check_tree(root)], ["licence"])


if __name__ == "__main__":
    unittest.main()
