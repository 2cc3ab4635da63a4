// SPDX-License-Identifier: MIT
// What the fuzz targets share: the fuzzer's bytes as a file, and claims that end the program where they do not hold.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

namespace syncbn::fuzz {

/// Ends the program, which the fuzzer reports as a finding, unless `holds`.
inline void require(bool holds, const std::string& claim) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", claim.c_str());
  std::abort();
}

/// A reader that refuses a file says why in one sentence that names the file.
inline void require_sentence(const std::string& text, const std::string& path) {
  constexpr std::size_t kLongest = 400;
  require(text.find(path) != std::string::npos, "the message names the file: " + text);
  const bool is_text = std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
  require(text.size() <= kLongest && is_text, "the message is one sentence that a terminal can show: " + text);
}

/// A file in memory, with a path that can be opened, for readers that want one.
class FileOfBytes {
 public:
  FileOfBytes()
      : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)), path_("/proc/self/fd/" + std::to_string(descriptor_)) {
    require(descriptor_ >= 0, "memfd_create works");
  }
  ~FileOfBytes() { ::close(descriptor_); }
  FileOfBytes(const FileOfBytes&) = delete;
  FileOfBytes& operator=(const FileOfBytes&) = delete;

  void set(const std::uint8_t* bytes, std::size_t count) {
    require(::ftruncate(descriptor_, 0) == 0, "ftruncate works");
    require(::pwrite(descriptor_, bytes, count, 0) == static_cast<ssize_t>(count), "pwrite works");
  }
  const std::string& path() const noexcept { return path_; }

 private:
  int descriptor_;
  std::string path_;
};

}  // namespace syncbn::fuzz
