// SPDX-License-Identifier: MIT
// A checkpoint. The first byte says what is done with the rest, which is the file:
//   bit 0      its checksums are made right first, as somebody does who means it, so that they do not hide what is behind
//   bit 1      today's training is the one that the file's header tells of, else a fixed one
//   bits 2-7   where a file that is accepted is cut off, and where a bit of it is flipped
#include <algorithm>
#include <atomic>
#include <charconv>

#include <sanitizer/allocator_interface.h>

#include "fuzz_target.hpp"
#include "train/checkpoint_format.hpp"
#include "train/errors.hpp"
#include "train/fnv.hpp"

using namespace syncbn::train;
using syncbn::Index;
using syncbn::fuzz::require;

namespace {

constexpr std::size_t kKeyBytesAt = 12;
constexpr std::size_t kKeyAt = 24;
constexpr std::size_t kHashBytes = 8;

// make_corpus.py has checkpoints of it.
constexpr const char* kFixedTraining =
    "arm\tlocal\nranks\t2\nweights\t7\nbatch norm layers\t2\nbatch norm channels\t5\ndata\t0\nepochs\t2\nlr\t0.05\n";

std::atomic<std::size_t> largest_allocation = 0;

void note_allocation(const volatile void*, std::size_t bytes) {
  if (bytes > largest_allocation) largest_allocation = bytes;
}
void note_release(const volatile void*) {}

/// The end of the options in a file; 0 if they are not all there.
std::size_t key_end(const Bytes& file) {
  if (file.size() < kKeyAt + 2 * kHashBytes) return 0;
  const auto bytes = ByteReader(file.data() + kKeyBytesAt, 4).get<std::uint32_t>();
  return bytes <= file.size() - kKeyAt - 2 * kHashBytes ? kKeyAt + bytes : 0;
}

void set_hash(Bytes& file, std::size_t at) {
  Fnv1a hash;
  hash.add(file.data(), at);
  Bytes written;
  ByteWriter(written).put(hash.value());
  std::copy(written.begin(), written.end(), file.begin() + static_cast<std::ptrdiff_t>(at));
}

/// A size among the options; 0 if it is none.
Index size_from(const std::string& text) {
  std::uint16_t size = 0;
  std::from_chars(text.data(), text.data() + text.size(), size);
  return size;
}

/// The training that these lines of options tell of, with two steps an epoch.
TrainingKey training_of(const std::string& text) {
  TrainingKey key;
  key.steps_per_epoch = 2;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::size_t tab = std::min(text.find('\t', at), end);
    const std::string name = text.substr(at, tab - at);
    const std::string value = tab < end ? text.substr(tab + 1, end - tab - 1) : "";
    key.entries.push_back({name, value});
    if (name == "weights") key.weights = size_from(value);
    if (name == "batch norm layers") key.norms = size_from(value);
    if (name == "batch norm channels") key.channels = size_from(value);
    if (name == "epochs") key.steps = size_from(value) * key.steps_per_epoch;
    if (name == "ranks" && value != "any") key.copies = size_from(value);
    at = end + 1;
  }
  return key;
}

bool is_refused(const syncbn::fuzz::FileOfBytes& file, const TrainingKey& key) {
  try {
    read_checkpoint(file.path(), key);
    return false;
  } catch (const DataError&) {
    return true;
  } catch (const UsageError&) {
    return true;
  }
}

/// `bytes` are accepted. They must not be if some are missing, or one is not what it was.
void require_that_damage_is_noticed(syncbn::fuzz::FileOfBytes& file, Bytes bytes, const TrainingKey& key,
                                    std::uint8_t how) {
  const std::size_t at = bytes.size() * (how >> 2) / 64;
  const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  file.set(data, at);
  require(is_refused(file, key), "a file that is cut off is refused");
  bytes[at] = static_cast<char>(bytes[at] ^ (1 << (at % 8)));
  file.set(data, bytes.size());
  require(is_refused(file, key), "a file with a bit flipped is refused");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static syncbn::fuzz::FileOfBytes file;
  static const bool is_watching = __sanitizer_install_malloc_and_free_hooks(note_allocation, note_release) > 0;
  require(is_watching, "allocations can be watched");
  if (size == 0) return 0;
  const std::uint8_t how = data[0];
  Bytes bytes(data + 1, data + size);
  const std::size_t end = key_end(bytes);
  if ((how & 1) != 0 && end > 0) {
    set_hash(bytes, end);
    set_hash(bytes, bytes.size() - kHashBytes);
  }
  const bool is_own = (how & 2) != 0 && end > 0;
  const TrainingKey key = training_of(is_own ? std::string(bytes.data() + kKeyAt, end - kKeyAt) : kFixedTraining);
  file.set(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  largest_allocation = 0;
  try {
    const Checkpoint found = read_checkpoint(file.path(), key);
    require(checkpoint_bytes(key, found) == bytes, "what is accepted is what would be written");
    require_that_damage_is_noticed(file, bytes, key, how);
  } catch (const DataError& error) {
    syncbn::fuzz::require_sentence(error.what(), file.path());
  } catch (const UsageError& error) {  // of another training
    syncbn::fuzz::require_sentence(error.what(), file.path());
  }
  // A stream's buffer, and records of epochs, which are larger in memory and whose vector grows twofold.
  require(largest_allocation <= 16384 + 4 * size, "no allocation is larger than the file accounts for");
  return 0;
}
