// SPDX-License-Identifier: MIT
// The tables that exist, for dispatch.cpp.
#pragma once

#include "kernels/kernels.hpp"

namespace syncbn::kernels {

const KernelTable& plain_table(DataType type);

/// Null if this build or this processor does not have the instruction set.
const KernelTable* vector_table(DataType type, Isa isa);

}  // namespace syncbn::kernels
