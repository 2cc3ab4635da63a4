// SPDX-License-Identifier: MIT
// Good and hostile CIFAR-10 files, and folders of one kind, of both and of none.
#include "train/cifar.hpp"

#include <gtest/gtest.h>

#include "cli/temporary_folder.hpp"
#include "train/data_folder.hpp"
#include "train/errors.hpp"

namespace syncbn::train {
namespace {

namespace fs = std::filesystem;
using Bytes = std::string;

constexpr std::size_t kRecordBytes = 3073;

/// Pixel `at` of record `number` in the files that the tests write.
std::uint8_t pixel(Index number, Index at) { return static_cast<std::uint8_t>(number * 31 + at * 7 + at / 1024); }

/// `count` records from number `first` on; labels are the numbers modulo 10.
Bytes records(Index first, Index count) {
  Bytes bytes;
  for (Index number = first; number < first + count; ++number) {
    bytes += static_cast<char>(number % 10);
    for (Index at = 0; at < 3072; ++at) bytes += static_cast<char>(pixel(number, at));
  }
  return bytes;
}

class CifarTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Index first = 0;
    for (int batch = 1; batch <= 5; ++batch) {
      put("data_batch_" + std::to_string(batch) + ".bin", records(first, batch));
      first += batch;
    }
    put("test_batch.bin", records(100, 4));
  }

  void put(const std::string& name, const Bytes& bytes) { folder_.save(name, bytes); }
  void remove(const std::string& name) { fs::remove(folder_ / name); }

  /// The folder is refused with one sentence that has both parts.
  void expect_refused(const std::string& name, const std::string& reason) {
    try {
      load_data_folder(folder_ / "");
      FAIL() << "accepted, wanted: " << name << " ... " << reason;
    } catch (const DataError& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find(name), std::string::npos) << text;
      EXPECT_NE(text.find(reason), std::string::npos) << text;
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    }
  }

  syncbn::testing::TemporaryFolder folder_;
};

void expect_image(const LabelledImages& images, Index index, Index number) {
  EXPECT_EQ(images.labels.at(static_cast<std::size_t>(index)), number % 10);
  for (Index at = 0; at < 3072; ++at) {
    ASSERT_EQ(images.pixels.at(static_cast<std::size_t>(index * 3072 + at)), pixel(number, at)) << at;
  }
}

TEST_F(CifarTest, ReadsAllBatchesInOrder) {
  const DataSet data = load_data_folder(folder_ / "");
  EXPECT_EQ(data.train.count, 15);
  EXPECT_EQ(data.test.count, 4);
  EXPECT_EQ(data.train.shape, (ImageShape{3, 32, 32}));
  EXPECT_EQ(data.test.shape, data.train.shape);
  ASSERT_EQ(data.train.labels.size(), 15u);
  ASSERT_EQ(data.train.pixels.size(), 15u * 3072);
  for (Index i = 0; i < 15; ++i) expect_image(data.train, i, i);
  for (Index i = 0; i < 4; ++i) expect_image(data.test, i, 100 + i);
}

TEST_F(CifarTest, FindsTheFolderOfTheArchive) {
  fs::create_directory(folder_ / "cifar-10-batches-bin");
  for (const std::string& name : folder_.names()) {
    if (name.find(".bin") != std::string::npos) fs::rename(folder_ / name, folder_ / ("cifar-10-batches-bin/" + name));
  }
  EXPECT_EQ(load_data_folder(folder_ / "").train.count, 15);
  remove("cifar-10-batches-bin/test_batch.bin");
  expect_refused("cifar-10-batches-bin", "has no test_batch.bin");
}

TEST_F(CifarTest, NamesEveryMissingFile) {
  remove("test_batch.bin");
  expect_refused("the data folder", "has no test_batch.bin");
  remove("data_batch_2.bin");
  expect_refused("the data folder", "has no data_batch_2.bin, test_batch.bin");
}

TEST_F(CifarTest, RefusesSizesThatAreNotWholeRecords) {
  put("data_batch_3.bin", records(0, 3).substr(1));
  expect_refused("data_batch_3.bin", "has 9218 bytes, wanted a multiple of 3073");
  put("data_batch_3.bin", records(0, 3) + "x");
  expect_refused("data_batch_3.bin", "has 9220 bytes, wanted a multiple of 3073");
  put("data_batch_3.bin", "");
  expect_refused("data_batch_3.bin", "is empty");
}

TEST_F(CifarTest, RefusesLabelsAboveNine) {
  Bytes bytes = records(0, 3);
  bytes[2 * kRecordBytes] = 10;
  put("test_batch.bin", bytes);
  expect_refused("test_batch.bin", "has label 10 for image 2, wanted 0 to 9");
  bytes[2 * kRecordBytes] = static_cast<char>(255);
  put("test_batch.bin", bytes);
  expect_refused("test_batch.bin", "has label 255 for image 2");
}

TEST_F(CifarTest, RefusesWebPagesArchivesAndFolders) {
  put("data_batch_1.bin", "<!DOCTYPE html><html>404</html>");
  expect_refused("data_batch_1.bin", "is a web page");
  Bytes page = "<html>";
  page.resize(kRecordBytes, ' ');
  put("data_batch_1.bin", page);
  expect_refused("data_batch_1.bin", "is a web page");
  put("data_batch_1.bin", "\x1f\x8b\x08 compressed");
  expect_refused("data_batch_1.bin", "is gzip-compressed");
  remove("data_batch_1.bin");
  fs::create_directory(folder_ / "data_batch_1.bin");
  expect_refused("data_batch_1.bin", "is not a regular file");
}

TEST_F(CifarTest, RefusesAHugeFileWithoutReadingIt) {
  fs::resize_file(folder_ / "test_batch.bin", std::uintmax_t{3073} << 21);  // sparse: takes no room on the disk
  expect_refused("test_batch.bin", "more than the limit");
}

TEST_F(CifarTest, RefusesAFolderOfBothKinds) {
  put("train-labels-idx1-ubyte", "");
  expect_refused("the data folder", "has both IDX files");
}

TEST_F(CifarTest, RefusesAFolderOfNeitherKind) {
  for (const std::string& name : folder_.names()) remove(name);
  expect_refused("the data folder", "has neither IDX files");
  put("file", "");
  EXPECT_THROW(load_data_folder(folder_ / "file"), DataError);
  EXPECT_THROW(load_data_folder(folder_ / "nowhere"), DataError);
}

}  // namespace
}  // namespace syncbn::train
