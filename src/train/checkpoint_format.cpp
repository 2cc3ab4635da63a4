// SPDX-License-Identifier: MIT
// The file. Little-endian throughout:
//
//   "SYNCBNCP", version u32, bytes of the key u32, bytes of the payload u64
//   the key, a line "name value" for each entry
//   FNV-1a of all before, u64
//   the payload: steps u64, epochs u64, copies u64, seconds f64; of each epoch train_loss, test_accuracy, seconds, step_seconds
//     and OtherAccuracies f64; of each step its loss f64; parameters f32, velocity f32; running_stats f32, batches_tracked i64
//   FNV-1a of all before, u64
#include "checkpoint_format.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "errors.hpp"
#include "fnv.hpp"

namespace syncbn::train {

namespace {

constexpr char kMagic[] = {'S', 'Y', 'N', 'C', 'B', 'N', 'C', 'P'};
constexpr std::uint32_t kVersion = 1;
constexpr std::uint64_t kPreambleBytes = sizeof(kMagic) + 4 + 4 + 8;
constexpr std::uint64_t kHashBytes = 8;
constexpr std::uint64_t kMaxKeyBytes = 1 << 16;

std::uint64_t hash_of(const Bytes& bytes) {
  Fnv1a hash;
  hash.add(bytes.data(), bytes.size());
  return hash.value();
}

std::string text_of(const TrainingKey& key) {
  std::string text;
  for (const KeyEntry& entry : key.entries) text += entry.name + '\t' + entry.value + '\n';
  return text;
}

/// Counts of the payload, from which its size follows.
struct Counts {
  std::uint64_t steps = 0;
  std::uint64_t epochs = 0;
  std::uint64_t copies = 0;
};

std::uint64_t payload_bytes(const TrainingKey& key, const Counts& counts) {
  const auto weights = static_cast<std::uint64_t>(key.weights);
  const auto channels = static_cast<std::uint64_t>(key.channels);
  const auto norms = static_cast<std::uint64_t>(key.norms);
  return 3 * 8 + 8 + 64 * counts.epochs + 8 * counts.steps + 8 * weights + counts.copies * (8 * channels + 8 * norms);
}

/// Whether a value from a file can stand in a sentence on a terminal.
bool is_presentable(const std::string& value) {
  constexpr std::size_t kLongest = 60;
  return value.size() <= kLongest &&
         std::all_of(value.begin(), value.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

/// Reads one file; every complaint names it.
class CheckpointFile {
 public:
  explicit CheckpointFile(const std::filesystem::path& path) : path_(path) { open(); }

  /// Everything but what the sizes of a key decide.
  Bytes read(const TrainingKey& key) {
    const Bytes preamble = take(kPreambleBytes, "header");
    check_preamble(preamble);
    const Bytes key_bytes = take(key_bytes_, "header");
    check_hash("header");
    check_key({key_bytes.begin(), key_bytes.end()}, key);
    const std::uint64_t limit = payload_bytes(
        key, {static_cast<std::uint64_t>(key.steps), static_cast<std::uint64_t>(key.steps / key.steps_per_epoch),
              static_cast<std::uint64_t>(key.copies)});
    if (payload_bytes_ > limit) {
      damaged("it has " + std::to_string(payload_bytes_) + " bytes of payload, this training can have " +
              std::to_string(limit));
    }
    Bytes payload = take(payload_bytes_, "payload");
    check_hash("payload");
    return payload;
  }

  [[noreturn]] void damaged(const std::string& how) const { refuse("is damaged: " + how); }

 private:
  [[noreturn]] void refuse(const std::string& why) const { throw DataError(path_.string() + " " + why); }

  void open() {
    std::error_code error;
    if (!std::filesystem::exists(path_, error)) {
      throw DataError("there is no " + path_.string() + " to resume from");
    }
    if (!std::filesystem::is_regular_file(path_, error)) refuse("is not a regular file");
    file_bytes_ = std::filesystem::file_size(path_, error);
    errno = 0;
    file_.open(path_, std::ios::binary);
    if (error || !file_)
      refuse(std::string("cannot be read") + (errno ? std::string(": ") + std::strerror(errno) : ""));
  }

  /// The next bytes, which must be there: nothing is allocated for a promise.
  Bytes take(std::uint64_t count, const std::string& part) {
    if (count > file_bytes_ - taken_) {
      refuse("is cut off in its " + part + ": it has " + std::to_string(file_bytes_) + " bytes");
    }
    Bytes bytes(count);
    if (!file_.read(bytes.data(), static_cast<std::streamsize>(count))) refuse("cannot be read to its end");
    taken_ += count;
    hash_.add(bytes.data(), bytes.size());
    return bytes;
  }

  /// The hash that stands here is that of all before.
  void check_hash(const std::string& part) {
    const std::uint64_t wanted = hash_.value();
    const Bytes bytes = take(kHashBytes, part);
    if (ByteReader(bytes.data(), bytes.size()).get<std::uint64_t>() != wanted) {
      damaged("the checksum of its " + part + " does not fit");
    }
  }

  void check_preamble(const Bytes& preamble) {
    if (!std::equal(std::begin(kMagic), std::end(kMagic), preamble.begin())) refuse("is not a checkpoint of syncbn");
    ByteReader reader(preamble.data() + sizeof(kMagic), preamble.size() - sizeof(kMagic));
    const auto version = reader.get<std::uint32_t>();
    if (version != kVersion) {
      refuse("has version " + std::to_string(version) + " of the format, this program reads version " +
             std::to_string(kVersion));
    }
    key_bytes_ = reader.get<std::uint32_t>();
    payload_bytes_ = reader.get<std::uint64_t>();
    if (key_bytes_ > kMaxKeyBytes) damaged("it has " + std::to_string(key_bytes_) + " bytes of options");
    const std::uint64_t rest = file_bytes_ - taken_;
    const std::uint64_t fixed = key_bytes_ + 2 * kHashBytes;
    if (rest < fixed || rest - fixed < payload_bytes_) {
      refuse("is cut off: it has " + std::to_string(file_bytes_) + " bytes, its header promises more");
    }
    if (rest - fixed > payload_bytes_) damaged("it has more bytes than its header promises");
  }

  /// Says the first thing that is not as in the training of today.
  void check_key(const std::string& found, const TrainingKey& key) const {
    std::size_t at = 0;
    for (const KeyEntry& entry : key.entries) {
      const std::size_t end = std::min(found.find('\n', at), found.size());
      const std::size_t tab = found.find('\t', at);
      if (tab >= end || found.compare(at, tab - at, entry.name) != 0) refuse("is of a program with other options");
      const std::string theirs = found.substr(tab + 1, end - tab - 1);
      if (theirs != entry.value) refuse_for(entry, theirs);
      at = end + 1;
    }
    if (at != found.size()) refuse("is of a program with other options");
  }

  [[noreturn]] void refuse_for(const KeyEntry& ours, const std::string& theirs) const {
    const std::string why = difference(ours, theirs);
    if (ours.decider == KeyEntry::Decider::program) refuse(why);
    throw UsageError(path_.string() + " " + why);
  }

  static std::string difference(const KeyEntry& ours, const std::string& theirs) {
    if (ours.name == "data") return "is of a training on other data";
    if (!is_presentable(theirs) || !is_presentable(ours.value)) return "is of a training with another " + ours.name;
    if (ours.name == "ranks") {
      return "is of a training on " + theirs + " ranks, this one has " + ours.value +
             ", and with this arm that is another training";
    }
    return "is of a training with " + ours.name + " " + theirs + ", this one has " + ours.value;
  }

  std::filesystem::path path_;
  std::ifstream file_;
  std::uint64_t file_bytes_ = 0;
  std::uint64_t taken_ = 0;
  std::uint64_t key_bytes_ = 0;
  std::uint64_t payload_bytes_ = 0;
  Fnv1a hash_;
};

/// The payload of `file`, whose checksum is right, so only somebody who means it can get here with anything wrong.
Checkpoint parse(const CheckpointFile& file, const Bytes& payload, const TrainingKey& key) {
  ByteReader reader(payload.data(), payload.size());
  if (payload.size() < 3 * 8) file.damaged("its payload is too short");
  Counts counts;
  counts.steps = reader.get<std::uint64_t>();
  counts.epochs = reader.get<std::uint64_t>();
  counts.copies = reader.get<std::uint64_t>();
  if (counts.steps > static_cast<std::uint64_t>(key.steps) ||
      counts.epochs != counts.steps / static_cast<std::uint64_t>(key.steps_per_epoch) ||
      counts.copies != static_cast<std::uint64_t>(key.copies) || payload.size() != payload_bytes(key, counts)) {
    file.damaged("its payload has " + std::to_string(counts.steps) + " steps, " + std::to_string(counts.epochs) +
                 " epochs and " + std::to_string(payload.size()) + " bytes, which do not fit");
  }

  Checkpoint checkpoint;
  checkpoint.copies = key.copies;
  checkpoint.seconds = reader.get<double>();
  for (std::uint64_t i = 0; i < counts.epochs; ++i) {
    EpochRecord epoch;
    epoch.epoch = static_cast<Index>(i) + 1;
    epoch.train_loss = reader.get<double>();
    epoch.test_accuracy = reader.get<double>();
    epoch.seconds = reader.get<double>();
    epoch.step_seconds = reader.get<double>();
    for (double* accuracy :
         {&epoch.others.mean_statistics, &epoch.others.worst_rank, &epoch.others.best_rank, &epoch.others.precise}) {
      *accuracy = reader.get<double>();
    }
    checkpoint.epochs.push_back(epoch);
  }
  checkpoint.step_losses = reader.get_all<double>(counts.steps);
  checkpoint.parameters = reader.get_all<float>(static_cast<std::size_t>(key.weights));
  checkpoint.velocity = reader.get_all<float>(static_cast<std::size_t>(key.weights));
  checkpoint.running_stats = reader.get_all<float>(static_cast<std::size_t>(key.copies * 2 * key.channels));
  checkpoint.batches_tracked = reader.get_all<std::int64_t>(static_cast<std::size_t>(key.copies * key.norms));
  for (const std::int64_t count : checkpoint.batches_tracked) {
    if (count < 0) file.damaged("a batch norm layer has seen " + std::to_string(count) + " batches");
  }
  return checkpoint;
}

}  // namespace

Bytes checkpoint_bytes(const TrainingKey& key, const Checkpoint& checkpoint) {
  const Counts counts{checkpoint.step_losses.size(), checkpoint.epochs.size(),
                      static_cast<std::uint64_t>(checkpoint.copies)};
  const std::string key_text = text_of(key);
  const std::uint64_t payload = payload_bytes(key, counts);
  Bytes bytes;
  bytes.reserve(kPreambleBytes + key_text.size() + payload + 2 * kHashBytes);
  ByteWriter writer(bytes);
  writer.put_text({kMagic, sizeof(kMagic)});
  writer.put(kVersion);
  writer.put(static_cast<std::uint32_t>(key_text.size()));
  writer.put(payload);
  writer.put_text(key_text);
  writer.put(hash_of(bytes));

  writer.put(counts.steps);
  writer.put(counts.epochs);
  writer.put(counts.copies);
  writer.put(checkpoint.seconds);
  for (const EpochRecord& epoch : checkpoint.epochs) {
    writer.put(epoch.train_loss);
    writer.put(epoch.test_accuracy);
    writer.put(epoch.seconds);
    writer.put(epoch.step_seconds);
    for (const double accuracy :
         {epoch.others.mean_statistics, epoch.others.worst_rank, epoch.others.best_rank, epoch.others.precise}) {
      writer.put(accuracy);
    }
  }
  writer.put_all(checkpoint.step_losses);
  writer.put_all(checkpoint.parameters);
  writer.put_all(checkpoint.velocity);
  writer.put_all(checkpoint.running_stats);
  writer.put_all(checkpoint.batches_tracked);
  writer.put(hash_of(bytes));
  return bytes;
}

Checkpoint read_checkpoint(const std::filesystem::path& path, const TrainingKey& key) {
  CheckpointFile file(path);
  return parse(file, file.read(key), key);
}

}  // namespace syncbn::train
