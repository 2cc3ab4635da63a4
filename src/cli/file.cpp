// SPDX-License-Identifier: MIT
#include "file.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "failure.hpp"

namespace syncbn::cli {
namespace {

constexpr Index kMaxBytesPerCall = Index{1} << 30;  // Linux moves at most 2^31 - 4096 bytes per call

[[noreturn]] void fail(const std::string& path, const std::string& what, int error) {
  throw LocalFailure(kBadData, what + " '" + path + "': " + std::strerror(error));
}

std::string host_name() {
  char name[256] = "";
  if (::gethostname(name, sizeof name - 1) != 0) return "localhost";
  return name;
}

/// Which process of this host has written the file, if `name` is that of a temporary file: ".y.npy.HOST.PID.tmp".
std::optional<pid_t> writer_of(const std::string& name) {
  const std::string before = ".npy." + host_name() + ".";
  const std::string after = ".tmp";
  const std::size_t at = name.rfind(before);
  if (name.front() != '.' || at == std::string::npos || at < 2) return std::nullopt;
  const std::size_t first = at + before.size();
  if (name.size() <= first + after.size() || name.substr(name.size() - after.size()) != after) return std::nullopt;
  pid_t pid = 0;
  const char* last = name.data() + name.size() - after.size();
  const auto [end, error] = std::from_chars(name.data() + first, last, pid);
  if (error != std::errc() || end != last || pid <= 0) return std::nullopt;
  return pid;
}

}  // namespace

FileReader::FileReader(const std::string& path) : path_(path) {
  // Asked before open(): opening a pipe would wait for somebody to write into it.
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) fail(path, "cannot read", errno);
  if (!S_ISREG(status.st_mode)) {
    throw LocalFailure(kBadData, "'" + path + "' is " + (S_ISDIR(status.st_mode) ? "a folder" : "a device or pipe") +
                                     ", wanted a file");
  }
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) fail(path, "cannot read", errno);
  size_ = status.st_size;
}

FileReader::~FileReader() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void FileReader::read(Index offset, Index count, void* out) const {
  char* to = static_cast<char*>(out);
  while (count > 0) {
    const ssize_t got = ::pread(descriptor_, to, static_cast<std::size_t>(std::min(count, kMaxBytesPerCall)), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(path_, "cannot read", errno);
    if (got == 0) throw LocalFailure(kBadData, "'" + path_ + "' became shorter while it was read");
    to += got;
    offset += got;
    count -= got;
  }
}

OutputFolder::OutputFolder(const std::string& path) : path_(path) {
  make_folders();
  if (::access(path_.c_str(), W_OK | X_OK) != 0) fail(path_, "cannot write into folder", errno);
  remove_leftovers();
}

void OutputFolder::make_folders() {
  namespace fs = std::filesystem;
  std::vector<fs::path> missing;
  std::error_code ignored;
  fs::path folder = fs::path(path_).lexically_normal();
  if (!folder.has_filename()) folder = folder.parent_path();
  while (!folder.empty() && !fs::exists(folder, ignored)) {
    missing.push_back(folder);
    folder = folder.parent_path();
  }
  std::reverse(missing.begin(), missing.end());
  for (const fs::path& each : missing) {
    if (::mkdir(each.c_str(), 0777) == 0) {
      made_folders_.push_back(each.string());
    } else if (errno != EEXIST) {
      const int error = errno;
      for (auto made = made_folders_.rbegin(); made != made_folders_.rend(); ++made) ::rmdir(made->c_str());
      fail(path_, "cannot make folder", error);
    }
  }
  if (!fs::is_directory(path_, ignored)) throw LocalFailure(kBadData, "'" + path_ + "' is not a folder");
}

OutputFolder::~OutputFolder() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (is_published_) return;
  for (const std::string& name : names_) ::unlink(temporary_path_of(name).c_str());
  for (auto made = made_folders_.rbegin(); made != made_folders_.rend(); ++made) ::rmdir(made->c_str());
}

std::string OutputFolder::path_of(const std::string& name) const { return path_ + "/" + name; }

std::string OutputFolder::temporary_path_of(const std::string& name) const {
  return path_ + "/." + name + "." + host_name() + "." + std::to_string(::getpid()) + ".tmp";
}

void OutputFolder::remove_leftovers() const {
  namespace fs = std::filesystem;
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (auto entry = fs::directory_iterator(path_, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    const std::optional<pid_t> writer = writer_of(entry->path().filename().string());
    if (writer && ::kill(*writer, 0) != 0 && errno == ESRCH) leftovers.push_back(entry->path());
  }
  for (const fs::path& leftover : leftovers) ::unlink(leftover.c_str());  // if it stays, nothing is lost
}

void OutputFolder::start(const std::string& name) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path_of(name), ignored)) {
    throw LocalFailure(kBadData, "cannot write '" + path_of(name) + "': it is a folder");
  }
  const std::string path = temporary_path_of(name);
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail(path_of(name), "cannot write", errno);
  names_.push_back(name);
}

void OutputFolder::write(const void* bytes, Index count) {
  const char* from = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t put = ::write(descriptor_, from, static_cast<std::size_t>(std::min(count, kMaxBytesPerCall)));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail(path_of(names_.back()), "cannot write", errno);
    from += put;
    count -= put;
  }
}

void OutputFolder::finish() {
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0) fail(path_of(names_.back()), "cannot write", errno);
}

void OutputFolder::publish() {
  std::string replaced;
  for (const std::string& name : names_) {
    if (std::rename(temporary_path_of(name).c_str(), path_of(name).c_str()) != 0) {
      const std::string reason = std::strerror(errno);
      throw LocalFailure(kBadData, "cannot write '" + path_of(name) + "': " + reason +
                                       (replaced.empty() ? "" : "; of this run are already " + replaced));
    }
    replaced += (replaced.empty() ? "" : ", ") + name;
  }
  is_published_ = true;
}

}  // namespace syncbn::cli
