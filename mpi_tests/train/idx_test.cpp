// SPDX-License-Identifier: MIT
// Good and hostile IDX files.
#include "train/idx.hpp"

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <new>

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include "train/errors.hpp"

namespace {
std::atomic<std::size_t> largest_allocation{0};  // bytes, since it was last set
}

// What a hostile header makes a reader ask for, whether it touches it or not.
// Not inlined: where gcc inlines one of a pair, it takes the other for a mistake.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  std::size_t largest = largest_allocation;
  while (bytes > largest && !largest_allocation.compare_exchange_weak(largest, bytes)) continue;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace syncbn::train {
namespace {

using Bytes = std::string;

Bytes big_endian(std::uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

Bytes image_header(std::uint32_t count, std::uint32_t rows, std::uint32_t columns) {
  return big_endian(0x803) + big_endian(count) + big_endian(rows) + big_endian(columns);
}

Bytes label_header(std::uint32_t count) { return big_endian(0x801) + big_endian(count); }

/// `count` images of 2 x 3 with pixels 0, 1, 2, ...
Bytes images(std::uint32_t count) {
  Bytes bytes = image_header(count, 2, 3);
  for (std::uint32_t i = 0; i < count * 6; ++i) bytes += static_cast<char>(i);
  return bytes;
}

Bytes labels(std::uint32_t count) {
  Bytes bytes = label_header(count);
  for (std::uint32_t i = 0; i < count; ++i) bytes += static_cast<char>(i % 10);
  return bytes;
}

class IdxTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("syncbn_idx_test." + std::to_string(getpid()));
    std::filesystem::create_directory(folder_);
    put("train-images-idx3-ubyte", images(5));
    put("train-labels-idx1-ubyte", labels(5));
    put("t10k-images-idx3-ubyte", images(2));
    put("t10k-labels-idx1-ubyte", labels(2));
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void put(const std::string& name, const Bytes& bytes) { std::ofstream(folder_ / name, std::ios::binary) << bytes; }
  void put_gz(const std::string& name, const Bytes& bytes) {
    gzFile file = gzopen((folder_ / name).c_str(), "wb");
    gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
    gzclose(file);
  }
  Bytes get(const std::string& name) {
    std::ifstream file(folder_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void remove(const std::string& name) { std::filesystem::remove(folder_ / name); }

  /// The folder is refused with one sentence that has both parts.
  void expect_refused(const std::string& name, const std::string& reason) {
    try {
      load_idx_folder(folder_);
      FAIL() << "accepted " << name << ", wanted: " << reason;
    } catch (const DataError& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find(name), std::string::npos) << text;
      EXPECT_NE(text.find(reason), std::string::npos) << text;
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    }
  }

  std::filesystem::path folder_;
};

TEST_F(IdxTest, ReadsCountsSizesPixelsAndLabels) {
  const DataSet data = load_idx_folder(folder_);
  EXPECT_EQ(data.train.count, 5);
  EXPECT_EQ(data.test.count, 2);
  EXPECT_EQ(data.train.shape, (ImageShape{1, 2, 3}));
  ASSERT_EQ(data.train.pixels.size(), 30u);
  EXPECT_EQ(data.train.pixels[29], 29);
  EXPECT_EQ(data.train.labels[4], 4);
}

TEST_F(IdxTest, ReadsGzipAndDottedNames) {
  const DataSet plain = load_idx_folder(folder_);
  remove("train-images-idx3-ubyte");
  put_gz("train-images-idx3-ubyte.gz", images(5));
  remove("t10k-labels-idx1-ubyte");
  put("t10k-labels.idx1-ubyte", labels(2));
  const DataSet data = load_idx_folder(folder_);
  EXPECT_EQ(data.train.pixels, plain.train.pixels);
  EXPECT_EQ(data.test.labels, plain.test.labels);
}

TEST_F(IdxTest, NamesEveryMissingFile) {
  remove("train-labels-idx1-ubyte");
  remove("t10k-images-idx3-ubyte");
  expect_refused("train-labels-idx1-ubyte[.gz]", "has no");
  expect_refused("t10k-images-idx3-ubyte[.gz]", "has no");
}

TEST_F(IdxTest, RefusesAFolderInPlaceOfAFile) {
  remove("train-images-idx3-ubyte");
  std::filesystem::create_directory(folder_ / "train-images-idx3-ubyte");
  expect_refused("train-images-idx3-ubyte", "not a regular file");
}

TEST_F(IdxTest, RefusesAWebPage) {
  put("train-images-idx3-ubyte", "<!DOCTYPE html><html>404</html>");
  expect_refused("train-images-idx3-ubyte", "web page");
  remove("train-images-idx3-ubyte");
  put("train-images-idx3-ubyte.gz", "<html>not found, but long enough for a header</html>");
  expect_refused("train-images-idx3-ubyte.gz", "web page");
}

TEST_F(IdxTest, RefusesWrongMagicAndShortFiles) {
  put("train-images-idx3-ubyte", labels(40));
  expect_refused("train-images-idx3-ubyte", "begins with 0x00000801");
  put("train-images-idx3-ubyte", "");
  expect_refused("train-images-idx3-ubyte", "too short");
  put("train-images-idx3-ubyte", image_header(5, 2, 3).substr(0, 11));
  expect_refused("train-images-idx3-ubyte", "cut off inside its header");
  put("train-images-idx3-ubyte", images(5));
  put("train-labels-idx1-ubyte", images(5));
  expect_refused("train-labels-idx1-ubyte", "not IDX labels");
}

TEST_F(IdxTest, RefusesMoreOrLessDataThanTheHeaderSays) {
  put("train-images-idx3-ubyte", images(5).substr(0, 40));
  expect_refused("train-images-idx3-ubyte", "promises 30 bytes of data, it holds 24");
  put("train-images-idx3-ubyte", images(5) + "x");
  expect_refused("train-images-idx3-ubyte", "holds more than");
}

TEST_F(IdxTest, RefusesAbsurdSizesWithoutAllocatingThem) {
  put("train-images-idx3-ubyte", image_header(0xffffffffu, 4096, 4096));
  expect_refused("train-images-idx3-ubyte", "more than the limit");
  put("train-images-idx3-ubyte", image_header(5, 0xffffffffu, 0xffffffffu));
  expect_refused("train-images-idx3-ubyte", "wanted 1 to 4096");
  put("train-images-idx3-ubyte", image_header(5, 0, 3));
  expect_refused("train-images-idx3-ubyte", "0 x 3");
  put("train-images-idx3-ubyte", image_header(0, 2, 3));
  expect_refused("train-images-idx3-ubyte", "holds no images");
  // Gigabytes that are not there: a file of 18 bytes.
  largest_allocation = 0;
  put("train-images-idx3-ubyte", image_header(1000, 2000, 2000) + "ab");
  expect_refused("train-images-idx3-ubyte", "it holds 2");
  put("train-images-idx3-ubyte", image_header(0x80000000u, 1, 1) + "ab");
  expect_refused("train-images-idx3-ubyte", "promises 2147483648 bytes of data, it holds 2");
  remove("train-images-idx3-ubyte");
  put_gz("train-images-idx3-ubyte.gz", image_header(0x80000000u, 1, 1) + "ab");
  expect_refused("train-images-idx3-ubyte.gz", "promises 2147483648 bytes of data, it holds 2");
  EXPECT_LE(largest_allocation.load(), std::size_t{1} << 20);
}

TEST_F(IdxTest, RefusesLabelsOfAnotherCountBeforeReadingThem) {
  largest_allocation = 0;
  put("train-labels-idx1-ubyte", label_header(0xffffffffu) + "ab");
  expect_refused("train-labels-idx1-ubyte", "has 4294967295 labels for 5 images");
  EXPECT_LE(largest_allocation.load(), std::size_t{1} << 20);
}

TEST_F(IdxTest, RefusesTruncatedAndDamagedGzip) {
  remove("train-images-idx3-ubyte");
  put_gz("train-images-idx3-ubyte.gz", images(40));
  const Bytes whole = get("train-images-idx3-ubyte.gz");
  put("train-labels-idx1-ubyte", labels(40));
  EXPECT_NO_THROW(load_idx_folder(folder_));
  put("train-images-idx3-ubyte.gz", whole.substr(0, whole.size() / 2));
  expect_refused("train-images-idx3-ubyte.gz", "cut off");
  put("train-images-idx3-ubyte.gz", whole.substr(0, whole.size() - 6));  // the check sum is gone
  expect_refused("train-images-idx3-ubyte.gz", "cut off");
  Bytes damaged = whole;
  damaged[whole.size() - 6] = static_cast<char>(damaged[whole.size() - 6] ^ 1);
  put("train-images-idx3-ubyte.gz", damaged);
  expect_refused("train-images-idx3-ubyte.gz", "damaged");
}

TEST_F(IdxTest, RefusesWhatIsCutOffInsideItsGzipHeader) {
  remove("train-images-idx3-ubyte");
  put("train-images-idx3-ubyte.gz", "\x1f\x8b");
  expect_refused("train-images-idx3-ubyte.gz", "cut off");
  put("train-images-idx3-ubyte.gz", "\x1f\x8b not deflate");
  expect_refused("train-images-idx3-ubyte.gz", "damaged");
  put("train-images-idx3-ubyte.gz", "\x1f");
  expect_refused("train-images-idx3-ubyte.gz", "too short");
}

TEST_F(IdxTest, ReadsGzipOfSeveralMembersAndRefusesWhatFollows) {
  const DataSet plain = load_idx_folder(folder_);
  remove("train-images-idx3-ubyte");
  put_gz("begin", images(5).substr(0, 20));
  put_gz("end", images(5).substr(20));
  const Bytes both = get("begin") + get("end");
  put("train-images-idx3-ubyte.gz", both);
  EXPECT_EQ(load_idx_folder(folder_).train.pixels, plain.train.pixels);
  put("train-images-idx3-ubyte.gz", both + "garbage");
  expect_refused("train-images-idx3-ubyte.gz", "something that is not gzip follows");
  put("train-images-idx3-ubyte.gz", both + Bytes(512, '\0'));
  expect_refused("train-images-idx3-ubyte.gz", "something that is not gzip follows");
  put("train-images-idx3-ubyte.gz", both + get("end"));
  expect_refused("train-images-idx3-ubyte.gz", "holds more than");
  put("train-images-idx3-ubyte.gz", both + get("end").substr(0, 9));
  expect_refused("train-images-idx3-ubyte.gz", "cut off");
}

TEST_F(IdxTest, RefusesWebPagesInPlaceOfLabels) {
  put("t10k-labels-idx1-ubyte", "<html></html>");
  expect_refused("t10k-labels-idx1-ubyte", "web page");
  remove("t10k-labels-idx1-ubyte");
  put_gz("t10k-labels-idx1-ubyte.gz", "<html></html>");
  expect_refused("t10k-labels-idx1-ubyte.gz", "web page");
}

TEST_F(IdxTest, RefusesLabelsThatDoNotFit) {
  put("train-labels-idx1-ubyte", labels(4));
  expect_refused("train-labels-idx1-ubyte", "4 labels for 5 images");
  Bytes bad = labels(5);
  bad.back() = 10;
  put("train-labels-idx1-ubyte", bad);
  expect_refused("train-labels-idx1-ubyte", "label 10 for image 4");
  put("train-labels-idx1-ubyte", labels(5).substr(0, 11));
  expect_refused("train-labels-idx1-ubyte", "promises 5 bytes of data, it holds 3");
  put("train-labels-idx1-ubyte", labels(5) + "x");
  expect_refused("train-labels-idx1-ubyte", "holds more than");
  put("t10k-labels-idx1-ubyte", labels(3));
  put("train-labels-idx1-ubyte", labels(5));
  expect_refused("t10k-labels-idx1-ubyte", "3 labels for 2 images");
}

TEST_F(IdxTest, RefusesTestImagesOfAnotherSize) {
  put("t10k-images-idx3-ubyte", image_header(2, 3, 2) + Bytes(12, '\0'));
  expect_refused("t10k-images-idx3-ubyte", "3 x 2");
}

}  // namespace
}  // namespace syncbn::train
