// SPDX-License-Identifier: MIT
// Good, damaged and hostile checkpoint files.
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <new>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "cli/temporary_folder.hpp"
#include "train/checkpoint.hpp"
#include "train/checkpoint_bytes.hpp"
#include "train/errors.hpp"
#include "train/fnv.hpp"
#include "train/generator.hpp"

namespace {

std::atomic<std::size_t> largest_allocation = 0;

void* measured(std::size_t bytes) {
  if (bytes > largest_allocation) largest_allocation = bytes;
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}

}  // namespace

// Not inlined: where gcc inlines one of a pair, it takes the other for a mistake.
[[gnu::noinline]] void* operator new(std::size_t bytes) { return measured(bytes); }
[[gnu::noinline]] void* operator new[](std::size_t bytes) { return measured(bytes); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace syncbn::train {
namespace {

const DataSet& data() {
  static const DataSet images = generate_strokes({.train_count = 40, .test_count = 10, .seed = 20});
  return images;
}

TrainingOptions options() {
  TrainingOptions result;
  result.network = "cnn";
  result.batch = 8;  // 5 steps an epoch
  result.epochs = 3;
  return result;
}

std::uint64_t hash_of(const std::string& bytes) {
  Fnv1a hash;
  hash.add(bytes.data(), bytes.size());
  return hash.value();
}

template <class T>
void overwrite(std::string& bytes, std::size_t at, T value) {
  Bytes written;
  ByteWriter(written).put(value);
  bytes.replace(at, written.size(), written.data(), written.size());
}

template <class T>
T read(const std::string& bytes, std::size_t at) {
  return ByteReader(bytes.data() + at, bytes.size() - at).get<T>();
}

// Where things stand in a file.
constexpr std::size_t kVersionAt = 8;
constexpr std::size_t kKeyBytesAt = 12;
constexpr std::size_t kPayloadBytesAt = 16;
constexpr std::size_t kKeyAt = 24;

class CheckpointFile : public ::testing::Test {
 protected:
  void SetUp() override {
    checkpoint_.step_losses = {2.5, 2.25, 2, 1.75, 1.5, 1.25, 1};
    checkpoint_.epochs = {{1, 2.0, 0.5, 0.25, 0.125, {0.1, 0.2, 0.3, 0.4}}};
    checkpoint_.seconds = 1.5;
    checkpoint_.parameters.assign(static_cast<std::size_t>(key_.weights), 0.5f);
    checkpoint_.velocity.assign(static_cast<std::size_t>(key_.weights), -0.25f);
    checkpoint_.running_stats.assign(static_cast<std::size_t>(2 * key_.channels), 3.f);
    checkpoint_.batches_tracked.assign(static_cast<std::size_t>(key_.norms), 7);
    save();
    whole_ = folder_.load(kCheckpointName);
  }

  std::filesystem::path path() const { return folder_ / ""; }
  void save() {
    save_checkpoint(path(), key_, checkpoint_, [] {});
  }
  Checkpoint load() { return load(key_); }
  Checkpoint load(const TrainingKey& key) { return load_checkpoint(path(), key, MPI_COMM_SELF); }

  std::size_t key_bytes() const { return read<std::uint32_t>(whole_, kKeyBytesAt); }
  std::size_t payload_at() const { return kKeyAt + key_bytes() + 8; }

  /// Both checksums made right: what somebody does who means it.
  std::string with_checksums(std::string bytes) const {
    const std::size_t key_end = payload_at() - 8;
    overwrite(bytes, key_end, hash_of(bytes.substr(0, key_end)));
    overwrite(bytes, bytes.size() - 8, hash_of(bytes.substr(0, bytes.size() - 8)));
    return bytes;
  }

  /// How the file is refused, as one that no option makes good.
  std::string refusal() {
    try {
      load();
    } catch (const DataError& error) {
      return error.what();
    }
    return "";
  }

  /// How the file is refused, as one for other options.
  std::string mismatch(const TrainingKey& key) {
    try {
      load(key);
    } catch (const UsageError& error) {
      return error.what();
    }
    return "";
  }

  void expect_refused(const std::string& bytes, const std::string& reason) {
    folder_.save(kCheckpointName, bytes);
    const std::string text = refusal();
    EXPECT_NE(text.find(reason), std::string::npos) << "'" << text << "', wanted: " << reason;
    EXPECT_NE(text.find(kCheckpointName), std::string::npos) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
  }

  void expect_refused(const std::function<void(TrainingOptions&)>& change, const std::string& reason) {
    TrainingOptions other = options();
    change(other);
    const std::string text = mismatch(key_of(data(), other, Arm::parse("sync"), 1));
    EXPECT_NE(text.find(reason), std::string::npos) << "'" << text << "', wanted: " << reason;
  }

  syncbn::testing::TemporaryFolder folder_;
  TrainingKey key_ = key_of(data(), options(), Arm::parse("sync"), 1);
  Checkpoint checkpoint_;
  std::string whole_;
};

TEST_F(CheckpointFile, GivesBackWhatWasSaved) {
  const Checkpoint loaded = load();
  EXPECT_EQ(loaded.step_losses, checkpoint_.step_losses);
  ASSERT_EQ(loaded.epochs.size(), 1u);
  EXPECT_EQ(loaded.epochs[0].epoch, 1);
  EXPECT_EQ(loaded.epochs[0].train_loss, 2.0);
  EXPECT_EQ(loaded.epochs[0].test_accuracy, 0.5);
  EXPECT_EQ(loaded.epochs[0].seconds, 0.25);
  EXPECT_EQ(loaded.epochs[0].step_seconds, 0.125);
  EXPECT_EQ(loaded.epochs[0].others.mean_statistics, 0.1);
  EXPECT_EQ(loaded.epochs[0].others.worst_rank, 0.2);
  EXPECT_EQ(loaded.epochs[0].others.best_rank, 0.3);
  EXPECT_EQ(loaded.epochs[0].others.precise, 0.4);
  EXPECT_EQ(loaded.seconds, 1.5);
  EXPECT_EQ(loaded.parameters, checkpoint_.parameters);
  EXPECT_EQ(loaded.velocity, checkpoint_.velocity);
  EXPECT_EQ(loaded.running_stats, checkpoint_.running_stats);
  EXPECT_EQ(loaded.batches_tracked, checkpoint_.batches_tracked);
  EXPECT_EQ(folder_.names(), (std::set<std::string>{kCheckpointName})) << "nothing else is left";
}

TEST_F(CheckpointFile, RefusesEveryTruncation) {
  for (std::size_t size = 0; size < whole_.size(); size += size < 1000 ? 1 : 997) {
    folder_.save(kCheckpointName, whole_.substr(0, size));
    ASSERT_NE(refusal().find("is cut off"), std::string::npos) << size << " bytes: '" << refusal() << "'";
  }
  expect_refused(whole_.substr(0, whole_.size() - 1), "is cut off");
  expect_refused(whole_ + "x", "more bytes than its header promises");
}

TEST_F(CheckpointFile, RefusesEveryDamagedByte) {
  for (std::size_t at = 0; at < whole_.size(); at += at < 1000 ? 1 : 499) {
    std::string damaged = whole_;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
    folder_.save(kCheckpointName, damaged);
    ASSERT_NE(refusal(), "") << "byte " << at;
  }
  std::string damaged = whole_;
  damaged[whole_.size() - 100] ^= 1;
  expect_refused(damaged, "the checksum of its payload does not fit");
  damaged = whole_;
  damaged[kKeyAt + 5] ^= 1;
  expect_refused(damaged, "the checksum of its header does not fit");
}

TEST_F(CheckpointFile, RefusesOtherFilesAndVersions) {
  expect_refused("<!DOCTYPE html><html>404 not found</html>", "is not a checkpoint of syncbn");
  expect_refused("", "is cut off");
  std::string other = whole_;
  overwrite(other, kVersionAt, std::uint32_t{2});
  expect_refused(with_checksums(other), "has version 2 of the format, this program reads version 1");
  std::filesystem::remove(folder_ / kCheckpointName);
  EXPECT_NE(refusal().find("there is no "), std::string::npos);
  std::filesystem::create_directory(folder_ / kCheckpointName);
  EXPECT_NE(refusal().find("is not a regular file"), std::string::npos);
}

TEST_F(CheckpointFile, RefusesAbsurdSizesWithoutAllocatingThem) {
  const std::uint64_t huge[] = {std::uint64_t{1} << 40, std::uint64_t{1} << 63, ~std::uint64_t{0},
                                ~std::uint64_t{0} - 31};
  largest_allocation = 0;
  for (const std::uint64_t bytes : huge) {
    std::string hostile = whole_;
    overwrite(hostile, kPayloadBytesAt, bytes);
    expect_refused(with_checksums(hostile), "is cut off");
    hostile = whole_;
    overwrite(hostile, payload_at(), bytes);  // steps
    expect_refused(with_checksums(hostile), "do not fit");
    hostile = whole_;
    overwrite(hostile, payload_at() + 8, bytes);  // epochs
    expect_refused(with_checksums(hostile), "do not fit");
    hostile = whole_;
    overwrite(hostile, payload_at() + 16, bytes);  // copies
    expect_refused(with_checksums(hostile), "do not fit");
  }
  std::string hostile = whole_;
  overwrite(hostile, kKeyBytesAt, ~std::uint32_t{0});
  expect_refused(hostile, "bytes of options");
  EXPECT_LT(largest_allocation, 4 * whole_.size());
}

TEST_F(CheckpointFile, RefusesMorePayloadThanTheTrainingCanHave) {
  std::string longer = whole_.substr(0, whole_.size() - 8) + std::string(1 << 20, '\0') + std::string(8, '\0');
  overwrite(longer, kPayloadBytesAt, read<std::uint64_t>(whole_, kPayloadBytesAt) + (1 << 20));
  expect_refused(with_checksums(longer), "this training can have");
}

TEST_F(CheckpointFile, RefusesImpossibleContents) {
  std::string hostile = whole_;
  overwrite(hostile, payload_at(), std::uint64_t{4});  // then the first epoch has not ended
  expect_refused(with_checksums(hostile), "do not fit");
  hostile = whole_;
  overwrite(hostile, whole_.size() - 16, std::int64_t{-1});
  expect_refused(with_checksums(hostile), "has seen -1 batches");
  hostile = whole_;
  hostile[kKeyAt] = '\n';
  expect_refused(with_checksums(hostile), "is of a program with other options");
  hostile = whole_;
  hostile[hostile.find("start\tseeded") + 6] = '\x1b';
  expect_refused(with_checksums(hostile), "is of a training with another start");
  hostile = whole_;
  hostile[hostile.find("classes\t10") + 8] = '2';
  expect_refused(with_checksums(hostile), "is of a training with classes 20, this one has 10");
  hostile = whole_;
  hostile[hostile.find("sync")] = '\x1b';
  folder_.save(kCheckpointName, with_checksums(hostile));
  EXPECT_NE(mismatch(key_).find("is of a training with another arm"), std::string::npos);
}

TEST_F(CheckpointFile, RefusesAnotherTraining) {
  expect_refused([](TrainingOptions& o) { o.network = "mlp"; }, "network cnn, this one has mlp");
  expect_refused([](TrainingOptions& o) { o.batch = 10; }, "batch 8, this one has 10");
  expect_refused([](TrainingOptions& o) { o.epochs = 4; }, "epochs 3, this one has 4");
  expect_refused([](TrainingOptions& o) { o.seed = 2; }, "seed 1, this one has 2");
  expect_refused([](TrainingOptions& o) { o.sgd.learning_rate = std::nextafter(0.05, 1); },
                 "lr 0.05, this one has 0.05");
  expect_refused([](TrainingOptions& o) { o.sgd.schedule = Schedule::constant; }, "schedule cosine");
  expect_refused([](TrainingOptions& o) { o.sgd.warmup_steps = 3; }, "warmup 0, this one has 3");
  expect_refused([](TrainingOptions& o) { o.sgd.milestones = {3, 6}; }, "milestones none, this one has 3,6");
  expect_refused([](TrainingOptions& o) { o.sgd.lr_gamma = 0.5; }, "lr-gamma 0.1");
  expect_refused([](TrainingOptions& o) { o.sgd.momentum = 0.5; }, "momentum 0.9, this one has 0.5");
  expect_refused([](TrainingOptions& o) { o.sgd.weight_decay = 0; }, "weight-decay 1e-04");
  EXPECT_NE(mismatch(key_of(data(), options(), Arm::parse("single"), 1)).find("arm sync, this one has single"),
            std::string::npos);
  EXPECT_EQ(mismatch(key_of(data(), options(), Arm::parse("sync"), 7)), "") << "sync goes on on any number of ranks";
}

TEST_F(CheckpointFile, RefusesOtherData) {
  DataSet other = data();
  other.test.pixels.back() ^= 1;
  EXPECT_NE(mismatch(key_of(other, options(), Arm::parse("sync"), 1)).find("is of a training on other data"),
            std::string::npos);
  other = data();
  other.train.labels.back() ^= 1;
  EXPECT_NE(mismatch(key_of(other, options(), Arm::parse("sync"), 1)).find("other data"), std::string::npos);
  other = data();
  other.name = "the same, elsewhere";
  EXPECT_EQ(mismatch(key_of(other, options(), Arm::parse("sync"), 1)), "");
}

TEST_F(CheckpointFile, StaysAsItWasWhenTheNextCannotBeWritten) {
  void (*handler)(int) = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit limit{1000, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  checkpoint_.seconds = 99;
  std::string failure;
  try {
    save();
  } catch (const DataError& error) {
    failure = error.what();
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(failure.find("File too large"), std::string::npos) << failure;
  EXPECT_EQ(load().seconds, 1.5);
  EXPECT_EQ(folder_.names(), (std::set<std::string>{kCheckpointName}));
}

TEST_F(CheckpointFile, MetricsAreCutBackToIt) {
  std::string kept = R"({"kind":"step","epoch":1,"step":1,"loss":2.5})"
                     "\n"
                     R"({"kind":"epoch","epoch":1,"train_loss":2.0})"
                     "\n"
                     R"({"kind":"step","epoch":2,"step":7,"loss":null})"
                     "\n";
  folder_.save("metrics.jsonl", kept + R"({"kind":"end","diverged":false})"
                                       "\n"
                                       R"({"kind":"step","epoch":2,"step":8,"loss":1})"
                                       "\n"
                                       R"({"kind":"epoch","epoch":2,"train_loss":2.0})"
                                       "\n"
                                       R"({"kind":"step","epoch":3,"st)");
  trim_metrics(path(), checkpoint_);
  EXPECT_EQ(folder_.load("metrics.jsonl"), kept);
  std::filesystem::remove(folder_ / "metrics.jsonl");
  trim_metrics(path(), checkpoint_);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "metrics.jsonl"));
}

TEST_F(CheckpointFile, CostsAreRecalledFromTheMetrics) {
  const std::string costs =
      R"("step_costs":{"statistics_seconds":1,"message_seconds":2,"element_seconds":3,"rest_seconds":4,"message_bytes":5}})"
      "\n";
  folder_.save("metrics.jsonl", R"({"kind":"step","epoch":1,)" + costs + R"({"kind":"epoch","epoch":2,)" + costs);
  recall_costs(path(), checkpoint_);
  EXPECT_FALSE(checkpoint_.epochs[0].costs.are_known());
  folder_.save("metrics.jsonl", R"({"kind":"epoch","epoch":1,)" + costs + "{\"kind\":\"epoch\",\"epoch\":1}\n[]\n3");
  recall_costs(path(), checkpoint_);
  EXPECT_EQ(checkpoint_.epochs[0].costs.seconds(), 10);
  EXPECT_EQ(checkpoint_.epochs[0].costs.rest_seconds, 4);
  EXPECT_EQ(checkpoint_.epochs[0].costs.message_bytes, 5);
}

TEST_F(CheckpointFile, CostsThatMakeNoSenseStayUnknown) {
  for (const char* wrong : {"-1", "null", "\"2\"", "[]"}) {
    folder_.save("metrics.jsonl",
                 R"({"kind":"epoch","epoch":1,"step_costs":{"statistics_seconds":1,"message_seconds":)" +
                     std::string(wrong) + R"(,"element_seconds":3,"rest_seconds":4,"message_bytes":5}})");
    recall_costs(path(), checkpoint_);
    EXPECT_FALSE(checkpoint_.epochs[0].costs.are_known()) << wrong;
  }
}

}  // namespace
}  // namespace syncbn::train
