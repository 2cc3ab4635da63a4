// SPDX-License-Identifier: MIT
#define SYNCBN_VECTOR_TYPE bfloat16
#include "kernels/vector-inl.hpp"
