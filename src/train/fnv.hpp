// SPDX-License-Identifier: MIT
// A hash that notices every change of a single byte.
#pragma once

#include <cstddef>
#include <cstdint>

namespace syncbn::train {

/// FNV-1a, 64 bits, over all bytes that were added. Not against people who forge.
class Fnv1a {
 public:
  void add(const void* data, std::size_t bytes) noexcept {
    const auto* byte = static_cast<const unsigned char*>(data);
    for (std::size_t i = 0; i < bytes; ++i) value_ = (value_ ^ byte[i]) * 0x100000001b3u;
  }
  std::uint64_t value() const noexcept { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace syncbn::train
