// SPDX-License-Identifier: MIT
#define SYNCBN_VECTOR_TYPE float
#include "kernels/vector-inl.hpp"
