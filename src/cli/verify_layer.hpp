// SPDX-License-Identifier: MIT
// The distributed layer on a batch of `syncbn verify`.
#pragma once

#include <mpi.h>

#include "shards.hpp"
#include "verify_cases.hpp"

namespace syncbn::cli {

/// What the layer gave. y and dx hold this rank's rows only, in their places; the other rows are zero.
struct LayerResult {
  Matrix y;
  Gradients gradients;
  RowRange rows;  ///< This rank's.
};

/// forward_train and backward of the layer, T = float or double. Collective.
template <class T>
LayerResult run_layer(const VerifyCase& batch, MPI_Comm comm);

/// Central differences of L = sum(dy*y) over all ranks, through forward_train in f64: every x of the batch, gamma and
/// beta. `nodes` gives the steps. The same on all ranks. Collective; 2*(M + 2)*D steps.
Gradients layer_differences(const VerifyCase& batch, const ForwardNodes& nodes, MPI_Comm comm);

}  // namespace syncbn::cli
