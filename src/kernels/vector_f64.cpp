// SPDX-License-Identifier: MIT
#define SYNCBN_VECTOR_TYPE double
#include "kernels/vector-inl.hpp"
