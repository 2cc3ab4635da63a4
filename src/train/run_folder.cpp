// SPDX-License-Identifier: MIT
#include "run_folder.hpp"

#include <cerrno>
#include <cstring>
#include <iterator>

#include "collectives.hpp"
#include "errors.hpp"

namespace syncbn::train {

namespace {

std::string reason() { return errno != 0 ? std::string(": ") + std::strerror(errno) : ""; }

}  // namespace

void write_whole(const std::filesystem::path& path, const std::string& text) {
  const std::filesystem::path temporary =
      path.parent_path() / std::string(".").append(path.filename().string()).append(".part");
  errno = 0;
  std::ofstream file(temporary);
  file << text << std::flush;
  file.close();
  const std::string why = reason();
  std::error_code error;
  if (file) std::filesystem::rename(temporary, path, error);
  if (!file || error) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw DataError("cannot write " + path.string() + (error ? ": " + error.message() : why));
  }
}

RunFolder::RunFolder(const std::filesystem::path& path, MPI_Comm comm, Earlier earlier)
    : path_(path), comm_(comm), rank_(rank_of(comm)) {
  on_first_rank(comm_, [this, earlier] {
    if (writes()) open(earlier);
  });
}

void RunFolder::open(Earlier earlier) {
  std::error_code error;
  std::filesystem::create_directories(path_, error);
  if (error || !std::filesystem::is_directory(path_, error)) {
    throw DataError("the output folder " + path_.string() + " cannot be made" +
                    (error ? ": " + error.message() : ": there is a file of that name"));
  }
  // Opened for appending first: a folder that cannot be written keeps what it has.
  errno = 0;
  metrics_.open(path_ / kRunFiles[0], std::ios::app);
  if (!metrics_) throw DataError("cannot write to the output folder " + path_.string() + reason());
  metrics_.close();
  for (std::size_t i = earlier == Earlier::continued ? kFilesThatGoOn : 0; i < std::size(kRunFiles); ++i) {
    std::filesystem::remove(path_ / kRunFiles[i], error);
    if (error) throw DataError("cannot replace " + (path_ / kRunFiles[i]).string() + ": " + error.message());
  }
  metrics_.open(path_ / kRunFiles[0], std::ios::app);
  if (!metrics_) throw DataError("cannot write " + (path_ / kRunFiles[0]).string() + reason());
}

void RunFolder::record(const std::string& line) {
  if (rank_ == 0) recorded_ += line + '\n';
  if (!writes() || !failure_.empty()) return;
  errno = 0;
  metrics_ << line << '\n' << std::flush;
  if (!metrics_) failure_ = "cannot write " + (path_ / kRunFiles[0]).string() + reason();
}

void RunFolder::write(const std::string& name, const std::string& text) {
  if (!writes() || !failure_.empty()) return;
  try {
    write_whole(path_ / name, text);
  } catch (const DataError& error) {
    failure_ = error.what();
  }
}

void RunFolder::finish() {
  on_first_rank(comm_, [this] {
    if (failure_.empty()) return;
    metrics_.close();
    std::error_code error;
    if (writes() && std::filesystem::file_size(path_ / kRunFiles[0], error) == 0 && !error) {
      std::filesystem::remove(path_ / kRunFiles[0], error);
      throw DataError(failure_);
    }
    throw DataError(failure_ + "; " + kRunFiles[0] + " has what was written before");
  });
}

}  // namespace syncbn::train
