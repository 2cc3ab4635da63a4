#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# A storage order that would need a copy is refused by the compiler, with a sentence; the right one is not.
set -euo pipefail

# compiles CALL MATRIX: what the compiler says.
compiles() {
  "$SYNCBN_CXX" -std=c++17 -fsyntax-only -I"$SYNCBN_SOURCE_DIR/include" -isystem "$SYNCBN_EIGEN" -x c++ - 2>&1 <<EOF
#include "syncbn/eigen.hpp"
void call(Eigen::Matrix<float, -1, -1, Eigen::$2>& x) { (void)syncbn::eigen::$1(x); }
EOF
}

compiles samples_in_rows RowMajor
compiles samples_in_columns ColMajor
for wrong in 'samples_in_rows ColMajor column-major' 'samples_in_columns RowMajor row-major'; do
  read -r call order said <<<"$wrong"
  if text=$(compiles "$call" "$order"); then
    echo "$call of a $said matrix compiles"
    exit 1
  fi
  grep -q "syncbn: this matrix is $said" <<<"$text" || { echo "$text"; exit 1; }
done
