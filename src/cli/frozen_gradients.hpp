// SPDX-License-Identifier: MIT
// Parameter gradients of a frozen layer over the batch of all ranks.
#pragma once

#include "syncbn/syncbn.hpp"

namespace syncbn::cli {

/// dgamma = invstd * sum(dy*(x-mean)) and dbeta = sum(dy) over the samples of all ranks: (channels), rounded once to
/// `type`. A frozen layer sends nothing, so its own backward() knows one rank's sums, which are rounded already.
///
/// @param cache  Of forward_frozen(); its x must still be there.
/// @param dy     This rank's samples, as x.
///
/// Numerics: a sample's contribution is formed from that sample alone, in twice the precision of double, and
/// contributions are added by ReproducibleSum: the same bits however the samples are split over ranks.
/// Collective. Throws AgreedFailure, or on all ranks StateError for more than 2^26 samples. Some 5 ns an element.
BatchNormGradients frozen_gradients(const BatchNormCache& cache, ConstTensorView dy, DataType type,
                                    const Communicator& communicator, MPI_Comm comm);

}  // namespace syncbn::cli
