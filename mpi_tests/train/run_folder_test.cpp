// SPDX-License-Identifier: MIT
// A folder on a disk that is full: a limit on the size of files stands for it.
#include "train/run_folder.hpp"

#include <csignal>
#include <string>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "cli/temporary_folder.hpp"
#include "train/errors.hpp"

namespace syncbn::train {
namespace {

/// No file of this process may become longer than `bytes` while the object lives.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_{};
};

std::string failure_of(RunFolder& folder) {
  try {
    folder.finish();
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

TEST(RunFolder, OnAFullDiskLeavesNoEmptyFile) {
  const syncbn::testing::TemporaryFolder outside;
  RunFolder folder(outside / "run", MPI_COMM_SELF);
  std::string failure;
  {
    const FileSizeLimit limit(0);
    folder.record("a line");
    folder.write("run.json", "{}");
    failure = failure_of(folder);
  }
  EXPECT_NE(failure.find("metrics.jsonl: File too large"), std::string::npos) << failure;
  EXPECT_TRUE(std::filesystem::is_empty(outside / "run"));
}

TEST(RunFolder, KeepsWhatWasWrittenBeforeTheDiskWasFull) {
  const syncbn::testing::TemporaryFolder outside;
  RunFolder folder(outside / "run", MPI_COMM_SELF);
  folder.record("a line");
  std::string failure;
  {
    const FileSizeLimit limit(7);
    folder.record("a line more");
    failure = failure_of(folder);
  }
  EXPECT_NE(failure.find("has what was written before"), std::string::npos) << failure;
  EXPECT_EQ(outside.load("run/metrics.jsonl"), "a line\n");
}

TEST(RunFolder, FinishIsSilentWhenAllIsWell) {
  const syncbn::testing::TemporaryFolder outside;
  RunFolder folder(outside / "run", MPI_COMM_SELF);
  folder.record("a line");
  EXPECT_EQ(failure_of(folder), "");
}

}  // namespace
}  // namespace syncbn::train
