// SPDX-License-Identifier: MIT
// Checkpoints to and from the disk.
#include "checkpoint.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "collectives.hpp"
#include "errors.hpp"

namespace syncbn::train {

namespace {

/// A file descriptor that is closed with its object.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const noexcept { return number_; }

 private:
  int number_;
};

bool write_all(int file, const Bytes& bytes, const std::function<void()>& still_here) {
  constexpr std::size_t kChunk = std::size_t{1} << 24;
  for (std::size_t first = 0; first < bytes.size();) {
    const ssize_t written = ::write(file, bytes.data() + first, std::min(kChunk, bytes.size() - first));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    first += static_cast<std::size_t>(written);
    still_here();
  }
  return true;
}

bool write_to_disk(const std::filesystem::path& path, const Bytes& bytes, const std::function<void()>& still_here) {
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  return file.number() >= 0 && write_all(file.number(), bytes, still_here) && ::fsync(file.number()) == 0;
}

/// A renamed file is on the disk when its folder is. Not all file systems can do that, and those have nothing better.
void sync_folder(const std::filesystem::path& folder) {
  const Descriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.number() >= 0) ::fsync(directory.number());
}

}  // namespace

void save_checkpoint(const std::filesystem::path& folder, const TrainingKey& key, const Checkpoint& checkpoint,
                     const std::function<void()>& still_here) {
  const std::filesystem::path path = folder / kCheckpointName;
  const std::filesystem::path temporary = folder / ("." + std::string(kCheckpointName) + ".part");
  errno = 0;
  if (!write_to_disk(temporary, checkpoint_bytes(key, checkpoint), still_here) ||
      ::rename(temporary.c_str(), path.c_str()) != 0) {
    const std::string reason = errno ? std::string(": ") + std::strerror(errno) : "";
    ::unlink(temporary.c_str());
    throw DataError("cannot write " + path.string() + reason);
  }
  sync_folder(folder);
}

Checkpoint load_checkpoint(const std::filesystem::path& folder, const TrainingKey& key, MPI_Comm comm) {
  Checkpoint checkpoint;
  on_first_rank(comm, [&] { checkpoint = read_checkpoint(folder / kCheckpointName, key); });
  broadcast(comm, checkpoint.step_losses);
  broadcast(comm, checkpoint.epochs);
  broadcast(comm, checkpoint.seconds);
  broadcast(comm, checkpoint.parameters);
  broadcast(comm, checkpoint.velocity);
  broadcast(comm, checkpoint.copies);
  broadcast(comm, checkpoint.running_stats);
  broadcast(comm, checkpoint.batches_tracked);
  return checkpoint;
}

}  // namespace syncbn::train
