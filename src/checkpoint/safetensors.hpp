// SPDX-License-Identifier: MIT
// The safetensors format: 8 bytes of the header's length, a JSON object, and the tensors' bytes without gaps. Both little-endian.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace syncbn::checkpoint {

/// A tensor in a file. begin and end are counted from the first byte behind the header.
struct TensorEntry {
  std::string name;
  std::string type;  ///< "F32", "I64", ...
  std::vector<std::uint64_t> shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  ///< In the order of their bytes.
  std::uint64_t data_offset = 0;     ///< Of the first tensor's bytes in the file.

  const TensorEntry* find(const std::string& name) const;
};

/// Reads and checks a file's header: every tensor has a known type and the bytes that its shape needs, and all tensors together are
/// the rest of the file. Throws StateError with one sentence that names the file.
SafetensorsHeader read_safetensors_header(const std::string& path);

/// The header's bytes for tensors with these names, types and shapes, laid out in this order; sets begin and end.
std::string safetensors_header_bytes(std::vector<TensorEntry>& tensors);

/// Bytes of an element; 0 for a type that the format does not have.
std::uint64_t bytes_of_type(const std::string& type);

}  // namespace syncbn::checkpoint
