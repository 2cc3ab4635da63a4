// SPDX-License-Identifier: MIT
// Channels whose every value is NaN.
#pragma once

#include "syncbn/tensor_view.hpp"

namespace syncbn::layer {

/// Writes the plain quiet NaN (no sign, no payload) over channel c of all samples.
///
/// Where two NaNs meet in one operation, the result is one of them, and which depends on the order of operands that the
/// compiler chose. An input's NaN with a sign or payload of its own (0.0/0.0 has one on x86) would so come out as
/// different bits of different builds and instruction sets.
void fill_channel_with_nan(const TensorView& tensor, Index c);

}  // namespace syncbn::layer
