#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The package as pip installs it, with the libraries of this build: it must work without the source tree and the build tree.
set -euo pipefail
rm -rf installed
cp -r "$SYNCBN_SOURCE_DIR/src/python" source # pip writes beside what it builds
SYNCBN_LIBRARY_DIR=$SYNCBN_BUILD_DIR/src "$SYNCBN_PYTHON" -m pip install -q --disable-pip-version-check --no-index --no-build-isolation \
  --no-deps --target installed ./source
rm -rf source
cd /
PYTHONPATH=$OLDPWD/installed "$SYNCBN_PYTHON" -B -c '
import numpy, torch, syncbn, syncbn.torch
x = numpy.arange(12, dtype="float32").reshape(4, 3)
y, _ = syncbn.BatchNorm(3).forward_train(x)
z = syncbn.torch.SyncBatchNorm(3)(torch.from_numpy(x))
assert numpy.array_equal(y, z.detach().numpy()), (y, z)
assert "installed" in syncbn.__file__
print(syncbn.version(), syncbn.instruction_set())'
