// SPDX-License-Identifier: MIT
// What the trainer throws beside the library's errors. `what()` is one sentence.
#pragma once

#include <stdexcept>
#include <string>

namespace syncbn::train {

/// Files that are missing, damaged, or cannot be written.
class DataError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// An argument that makes no sense.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace syncbn::train
