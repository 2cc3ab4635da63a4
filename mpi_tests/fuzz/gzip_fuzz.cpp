// SPDX-License-Identifier: MIT
// Raw and gzip files: what InputFile reads is what zlib's own reader reads, and what that refuses is refused.
#include <optional>

#include <zlib.h>

#include "fuzz_target.hpp"
#include "train/errors.hpp"
#include "train/input_file.hpp"

using namespace syncbn::train;
using Bytes = std::vector<std::uint8_t>;

namespace {

/// As zlib reads it; nullopt if it finds an error. What follows gzip data it passes over.
std::optional<Bytes> read_with_zlib(const std::string& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  syncbn::fuzz::require(file != nullptr, "gzopen works");
  Bytes all;
  Bytes part(4096);
  int got = 0;
  while ((got = gzread(file, part.data(), static_cast<unsigned>(part.size()))) > 0) {
    all.insert(all.end(), part.begin(), part.begin() + got);
  }
  int code = Z_OK;
  gzerror(file, &code);
  gzclose(file);
  if (got < 0 || (code != Z_OK && code != Z_STREAM_END)) return std::nullopt;
  return all;
}

Bytes read(const std::string& path, std::size_t part_bytes) {
  InputFile file(path);
  Bytes all;
  Bytes part(part_bytes);
  for (;;) {
    const std::size_t got = file.read(part.data(), part.size());
    all.insert(all.end(), part.begin(), part.begin() + static_cast<std::ptrdiff_t>(got));
    if (got < part.size()) return all;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static syncbn::fuzz::FileOfBytes file;
  file.set(data, size);
  try {
    const Bytes found = read(file.path(), size % 2 ? 997 : 65536);
    const std::optional<Bytes> wanted = read_with_zlib(file.path());
    syncbn::fuzz::require(wanted.has_value(), "what zlib refuses is refused");
    syncbn::fuzz::require(found == *wanted, "the contents are those that zlib reads");
  } catch (const DataError& error) {
    syncbn::fuzz::require_sentence(error.what(), file.path());
  }
  return 0;
}
