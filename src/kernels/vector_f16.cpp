// SPDX-License-Identifier: MIT
#define SYNCBN_VECTOR_TYPE float16
#include "kernels/vector-inl.hpp"
