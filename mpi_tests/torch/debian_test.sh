#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The operators, the module and the LibTorch example with Debian's PyTorch, beside an installed library.
set -euo pipefail
if ! "$SYNCBN_PYTHON" -c 'import torch, numpy' 2>/dev/null; then
  echo "skipped: $SYNCBN_PYTHON has no PyTorch (Debian: python3-torch libtorch-dev)"
  exit 77
fi
rm -rf prefix build example
cmake --install "$SYNCBN_BUILD_DIR" --prefix "$PWD/prefix" >install.txt
cmake -S "$SYNCBN_SOURCE_DIR/src/torch" -B build -DCMAKE_BUILD_TYPE=Release "-DCMAKE_PREFIX_PATH=$PWD/prefix" \
  "-DMPI_CXX_COMPILER=${SYNCBN_MPICC/mpicc/mpicxx}" "-DSYNCBN_TORCH_PYTHON=$SYNCBN_PYTHON" >configure.txt
cmake --build build --parallel 2 >build.txt || { cat build.txt; exit 1; }
cp -P prefix/lib/libsyncbn.so* build

export SYNCBN_LIBRARY_DIR=$PWD/build PYTHONPATH=$SYNCBN_SOURCE_DIR/src/python SYNCBN_TORCH_PROCESSES="1 2"
export LD_LIBRARY_PATH=$PWD/prefix/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
"$SYNCBN_PYTHON" -c 'import torch; print("PyTorch", torch.__version__)'
"$SYNCBN_PYTHON" -B "$SYNCBN_SOURCE_DIR/mpi_tests/torch/module_test.py"
"$SYNCBN_PYTHON" -B "$SYNCBN_SOURCE_DIR/mpi_tests/torch/peers_test.py"
"$SYNCBN_PYTHON" -B "$SYNCBN_SOURCE_DIR/mpi_tests/torch/group_test.py"
