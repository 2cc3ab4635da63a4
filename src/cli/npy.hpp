// SPDX-License-Identifier: MIT
// NumPy's .npy files: f16, f32 and f64 (NumPy has no bf16), little-endian, C order. Nothing of a file is trusted before its header and its real
// size have been found to agree.
#pragma once

#include <string>
#include <vector>

#include "syncbn/tensor_view.hpp"

namespace syncbn::cli {

/// What a .npy file says about its numbers, and where they start.
struct NpyHeader {
  DataType type = DataType::f32;
  std::vector<Index> shape;  ///< Empty for a 0-d array.
  Index data_offset = 0;     ///< Bytes from the start of the file.

  Index element_count() const noexcept;
};

/// "5, 3"; of more than 8 axes the first ones and how many there are, "1, 1, 1, 1, ... 500 axes". For messages.
std::string list_text(const std::vector<Index>& values);

/// "(5, 3)", "(4,)", "()": a shape as NumPy prints it, cut like list_text().
std::string shape_text(const std::vector<Index>& shape);

/// Reads and checks the header of format 1.0, 2.0 or 3.0; allocates no more than the header's own length (at most 1
/// MiB). The file's size is exactly data_offset + element_count() * size_of(type) bytes afterwards. Throws LocalFailure
/// (bad data), one sentence that names the file, what it has and what is wanted.
NpyHeader read_npy_header(const std::string& path);

/// Reads elements [first, first + count) of the file, in its own type, to `out`.
/// Throws LocalFailure if the file cannot be read or has become shorter.
void read_npy_elements(const std::string& path, const NpyHeader& header, Index first, Index count, void* out);

/// The bytes that come before the data of a C-order array (format 1.0; 2.0 if the shape is very long). A multiple
/// of 64.
std::string npy_header_bytes(DataType type, const std::vector<Index>& shape);

}  // namespace syncbn::cli
