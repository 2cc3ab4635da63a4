// SPDX-License-Identifier: MIT
// Everything that syncbn throws. The library never prints and never exits.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "syncbn/export.h"

namespace syncbn {

/// What went wrong. The value travels between ranks, so that all of them throw the same class.
enum class ErrorCode : std::int32_t {
  none = 0,
  shape = 1,       ///< A tensor's shape, dtype, layout or pointer does not fit the layer.
  option = 2,      ///< An option is out of its range.
  state = 3,       ///< A call that this object cannot serve now (backward of a frozen-in-place input, ...).
  mismatch = 4,    ///< The ranks do not do the same: other options, another layer, another step.
  mpi = 5,         ///< An MPI call failed, or MPI is not running.
  non_finite = 6,  ///< A NaN or an infinity, under NonFinitePolicy::error.
  timeout = 7,     ///< A rank did not come within the deadline. The communicator cannot be used any more.
};

/// Base of all errors. `what()` is one sentence: where, got, wanted, and on which rank.
class SYNCBN_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& text) : std::runtime_error(text), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

class SYNCBN_API ShapeError : public Error {
 public:
  explicit ShapeError(const std::string& text) : Error(ErrorCode::shape, text) {}
};

class SYNCBN_API OptionError : public Error {
 public:
  explicit OptionError(const std::string& text) : Error(ErrorCode::option, text) {}
};

class SYNCBN_API StateError : public Error {
 public:
  explicit StateError(const std::string& text) : Error(ErrorCode::state, text) {}
};

class SYNCBN_API MismatchError : public Error {
 public:
  explicit MismatchError(const std::string& text) : Error(ErrorCode::mismatch, text) {}
};

class SYNCBN_API MpiError : public Error {
 public:
  explicit MpiError(const std::string& text) : Error(ErrorCode::mpi, text) {}
};

class SYNCBN_API NonFiniteError : public Error {
 public:
  explicit NonFiniteError(const std::string& text) : Error(ErrorCode::non_finite, text) {}
};

class SYNCBN_API TimeoutError : public Error {
 public:
  explicit TimeoutError(const std::string& text) : Error(ErrorCode::timeout, text) {}
};

/// Throws the class that belongs to `code`.
[[noreturn]] inline void throw_error(ErrorCode code, const std::string& text) {
  switch (code) {
    case ErrorCode::shape:
      throw ShapeError(text);
    case ErrorCode::option:
      throw OptionError(text);
    case ErrorCode::state:
      throw StateError(text);
    case ErrorCode::mismatch:
      throw MismatchError(text);
    case ErrorCode::mpi:
      throw MpiError(text);
    case ErrorCode::non_finite:
      throw NonFiniteError(text);
    case ErrorCode::timeout:
      throw TimeoutError(text);
    case ErrorCode::none:
      break;
  }
  throw Error(code, text);
}

}  // namespace syncbn
