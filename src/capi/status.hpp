// SPDX-License-Identifier: MIT
// From exceptions to a status and a text of this thread.
#pragma once

#include <new>
#include <stdexcept>
#include <string>

#include "syncbn/error.hpp"
#include "syncbn/syncbn.h"

namespace syncbn::capi {

/// The caller's own mistake: SYNCBN_ERROR_ARGUMENT.
struct ArgumentError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Throws ArgumentError unless there is something. `call` and `name` as the header has them.
inline void want(const void* pointer, const char* call, const char* name) {
  if (pointer == nullptr) throw ArgumentError(std::string("[") + call + "] " + name + " is NULL");
}

/// Remembers the text for syncbn_last_error() and returns the status.
syncbn_status fail(syncbn_status status, const char* text) noexcept;

/// Runs `body`; what it throws becomes a status.
template <class Body>
syncbn_status guarded(const Body& body) noexcept {
  try {
    body();
    return SYNCBN_OK;
  } catch (const Error& error) {
    return fail(static_cast<syncbn_status>(error.code()), error.what());
  } catch (const ArgumentError& error) {
    return fail(SYNCBN_ERROR_ARGUMENT, error.what());
  } catch (const std::bad_alloc&) {
    return fail(SYNCBN_ERROR_MEMORY, "there is not enough memory");
  } catch (const std::exception& error) {
    return fail(SYNCBN_ERROR_OTHER, error.what());
  } catch (...) {
    return fail(SYNCBN_ERROR_OTHER, "an exception that is no std::exception");
  }
}

}  // namespace syncbn::capi
