// SPDX-License-Identifier: MIT
// A .npy file: its header, its elements, and the header written anew.
#include <vector>

#include "cli/failure.hpp"
#include "cli/npy.hpp"
#include "fuzz_target.hpp"

using namespace syncbn::cli;
using syncbn::fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static syncbn::fuzz::FileOfBytes file;
  static syncbn::fuzz::FileOfBytes again;
  file.set(data, size);
  try {
    const NpyHeader header = read_npy_header(file.path());
    const auto bytes = static_cast<std::size_t>(header.element_count() * syncbn::size_of(header.type));
    require(static_cast<std::size_t>(header.data_offset) + bytes == size, "header and data are the whole file");
    std::vector<std::uint8_t> elements(bytes);
    read_npy_elements(file.path(), header, 0, header.element_count(), elements.data());
    require(elements == std::vector<std::uint8_t>(data + header.data_offset, data + size), "elements are the file's");

    const std::string start = npy_header_bytes(header.type, header.shape);
    std::vector<std::uint8_t> whole(start.begin(), start.end());
    whole.insert(whole.end(), elements.begin(), elements.end());
    again.set(whole.data(), whole.size());
    const NpyHeader second = read_npy_header(again.path());
    require(second.type == header.type && second.shape == header.shape, "what is written is what was read");
  } catch (const LocalFailure& failure) {
    require(failure.code() == kBadData, "bad data is called bad data");
    syncbn::fuzz::require_sentence(failure.what(), file.path());
  }
  return 0;
}
