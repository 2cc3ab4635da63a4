// SPDX-License-Identifier: MIT
// Files as the readers of data meet them: from front to back, raw or gzip-compressed.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

struct z_stream_s;

namespace syncbn::train {

/// No more than this of a file is taken into memory.
inline constexpr std::uint64_t kMaxContentBytes = std::uint64_t{4} << 30;

/// A regular file, open for reading. A file that begins as gzip does is inflated on the way: one or more gzip members and
/// nothing behind them.
///
/// Local. All functions throw DataError, one sentence that begins with the file's name.
class InputFile {
 public:
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  bool is_gzip() const noexcept { return inflater_ != nullptr; }
  std::uint64_t bytes_on_disk() const noexcept { return bytes_on_disk_; }  ///< When it was opened.

  /// Up to `bytes` bytes of the contents; fewer only at their end. To have a gzip file's check sum looked at, read until
  /// there are fewer.
  std::size_t read(std::uint8_t* out, std::size_t bytes);

  /// "FILE is a web page ...", if the first byte of the contents says so.
  /// @param wanted  What it should be, "IDX images" for instance.
  void refuse_web_page(std::uint8_t first, const std::string& wanted) const;

  [[noreturn]] void fail(const std::string& what) const;

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const noexcept { std::fclose(file); }
  };
  struct EndInflate {
    void operator()(z_stream_s* stream) const noexcept;
  };

  bool fill();  ///< The next compressed bytes, if there are any left over or in the file.
  void start_inflating();
  void inflate_some();
  void start_next_member();

  std::string name_;
  std::uint64_t bytes_on_disk_ = 0;
  std::unique_ptr<std::FILE, CloseFile> file_;
  std::unique_ptr<z_stream_s, EndInflate> inflater_;
  std::vector<std::uint8_t> compressed_;
  bool is_inflated_ = false;  ///< The last member has ended.
};

}  // namespace syncbn::train
