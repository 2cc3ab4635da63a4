// SPDX-License-Identifier: MIT
#include "capi/status.hpp"

#include <algorithm>
#include <cstring>

#include "syncbn/version.hpp"

namespace syncbn::capi {
namespace {

/// Longer texts are cut: to remember one must not fail.
thread_local char last_error[4096];

}  // namespace

syncbn_status fail(syncbn_status status, const char* text) noexcept {
  const std::size_t length = std::min(std::strlen(text), sizeof last_error - 1);
  std::memcpy(last_error, text, length);
  last_error[length] = '\0';
  return status;
}

static_assert(static_cast<int>(ErrorCode::shape) == SYNCBN_ERROR_SHAPE &&
              static_cast<int>(ErrorCode::option) == SYNCBN_ERROR_OPTION &&
              static_cast<int>(ErrorCode::state) == SYNCBN_ERROR_STATE &&
              static_cast<int>(ErrorCode::mismatch) == SYNCBN_ERROR_MISMATCH &&
              static_cast<int>(ErrorCode::mpi) == SYNCBN_ERROR_MPI &&
              static_cast<int>(ErrorCode::non_finite) == SYNCBN_ERROR_NON_FINITE &&
              static_cast<int>(ErrorCode::timeout) == SYNCBN_ERROR_TIMEOUT);

}  // namespace syncbn::capi

extern "C" {

const char* syncbn_last_error(void) { return syncbn::capi::last_error; }
const char* syncbn_version(void) { return SYNCBN_VERSION; }
int32_t syncbn_abi_version(void) { return SYNCBN_ABI_VERSION; }
const char* syncbn_instruction_set(void) { return syncbn::instruction_set(); }

}  // extern "C"
