// SPDX-License-Identifier: MIT
#pragma once

#include "syncbn/export.h"

#define SYNCBN_VERSION_MAJOR 0
#define SYNCBN_VERSION_MINOR 1
#define SYNCBN_VERSION_PATCH 0
#define SYNCBN_VERSION "0.1.0"

namespace syncbn {

/// The instruction set whose kernels run in this process: "avx512", "avx2", "native" (another processor's vectors) or
/// "scalar". The environment variable SYNCBN_ISA asks for one; results are the same bits with each.
SYNCBN_API const char* instruction_set() noexcept;

}  // namespace syncbn
