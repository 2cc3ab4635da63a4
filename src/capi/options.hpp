// SPDX-License-Identifier: MIT
// C structs as the C++ interface has them.
#pragma once

#include "syncbn/communicator.hpp"
#include "syncbn/options.hpp"
#include "syncbn/syncbn.h"

namespace syncbn::capi {

/// Null: the defaults. Throws ArgumentError for a struct_size that is none and for flags that are neither 0 nor 1.
CommunicatorOptions options_of(const syncbn_communicator_options* options);
BatchNormOptions options_of(const syncbn_layer_options& options);

/// Null: no tensor. Never throws: what is wrong with it is a defect, which the layer reports on all ranks.
TensorView view_of(const syncbn_tensor* tensor) noexcept;

}  // namespace syncbn::capi
