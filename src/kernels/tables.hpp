// SPDX-License-Identifier: MIT
// The tables that exist, for dispatch.cpp.
#pragma once

#include "kernels/kernels.hpp"
#include "syncbn/half.hpp"

namespace syncbn::kernels {

const KernelTable& plain_table(DataType type);

/// The vectors of one instruction set, whether or not this processor has it; null if this build has not. T: float, double,
/// bfloat16, float16.
template <class T>
const KernelTable* vector_table_of(Isa isa);
template <>
const KernelTable* vector_table_of<float>(Isa isa);
template <>
const KernelTable* vector_table_of<double>(Isa isa);
template <>
const KernelTable* vector_table_of<bfloat16>(Isa isa);
template <>
const KernelTable* vector_table_of<float16>(Isa isa);

/// Null if this build or this processor does not have the instruction set.
const KernelTable* vector_table(DataType type, Isa isa);

}  // namespace syncbn::kernels
