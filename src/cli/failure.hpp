// SPDX-License-Identifier: MIT
// What the program says when it cannot go on, and with which code it exits.
#pragma once

#include <stdexcept>
#include <string>

#include "command.hpp"

namespace syncbn::cli {

/// One sentence for the user, without a full stop, and the exit code that belongs to it.
struct Failure {
  ExitCode code = kEnvironment;
  std::string text;
};

/// A failure that only this rank knows of. Throw it inside together() (agree.hpp), which makes it known to all ranks;
/// main() answers one that escapes with MPI_Abort, because the other ranks may be waiting in a collective.
class LocalFailure : public std::runtime_error {
 public:
  LocalFailure(ExitCode code, const std::string& text) : std::runtime_error(text), code_(code) {}
  ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

/// A failure that every rank throws at the same place. Rank 0 prints it and all ranks return `code` after MPI_Finalize.
class AgreedFailure : public std::runtime_error {
 public:
  explicit AgreedFailure(const Failure& failure) : std::runtime_error(failure.text), code_(failure.code) {}
  ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

}  // namespace syncbn::cli
