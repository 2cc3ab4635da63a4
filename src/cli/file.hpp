// SPDX-License-Identifier: MIT
// Files with checked system calls: reading anywhere in a regular file, and output that appears complete or not at all.
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

#include "syncbn/tensor_view.hpp"

namespace syncbn::cli {

/// A regular file, open for reading. All functions throw LocalFailure (bad data) naming the file and the reason.
class FileReader {
 public:
  explicit FileReader(const std::string& path);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  const std::string& path() const noexcept { return path_; }
  Index size() const noexcept { return size_; }  ///< Bytes, when it was opened.

  /// Bytes [offset, offset + count) to `out`; a file that ends before that is a failure.
  void read(Index offset, Index count, void* out) const;

 private:
  std::string path_;
  int descriptor_ = -1;
  Index size_ = 0;
};

/// A folder that receives a set of files: they are written under temporary names and get their own names together, by
/// publish(). Without it the destructor removes them, and the folder if it was made for them.
///
/// All functions throw LocalFailure (bad data) naming the file and the reason.
class OutputFolder {
 public:
  /// Makes the folder (and the ones above it) if it does not exist. Removes temporary files ("*.npy" ones) in it that
  /// processes of this host have left when they were killed.
  explicit OutputFolder(const std::string& path);
  ~OutputFolder();
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  /// Starts the next file. One file is open at a time.
  void start(const std::string& name);
  void write(const void* bytes, Index count);
  void finish();  ///< Closes the file that start() opened.

  /// Gives all files their names, replacing older ones. Each file is complete even if a later one cannot be renamed;
  /// the failure then says which files are already new.
  void publish();

  const std::vector<std::string>& names() const noexcept { return names_; }

 private:
  std::string path_of(const std::string& name) const;
  std::string temporary_path_of(const std::string& name) const;
  void make_folders();
  void remove_leftovers() const;

  std::string path_;
  std::vector<std::string> made_folders_;  ///< Outermost first.
  std::vector<std::string> names_;
  bool is_published_ = false;
  int descriptor_ = -1;
};

}  // namespace syncbn::cli
