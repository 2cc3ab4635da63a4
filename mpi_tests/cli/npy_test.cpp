// SPDX-License-Identifier: MIT
#include "npy.hpp"

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "cli/temporary_folder.hpp"
#include "failure.hpp"

namespace syncbn::cli {
namespace {

using syncbn::testing::TemporaryFolder;

std::string bytes_of(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

/// A file of format `major`.0 with this header text.
std::string file_with(int major, const std::string& header, const std::string& data) {
  std::string bytes = "\x93NUMPY";
  bytes += static_cast<char>(major);
  bytes += '\0';
  for (int i = 0; i < (major == 1 ? 2 : 4); ++i) bytes += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return bytes + header + data;
}

TEST(NpyHeader, WrittenHeadersAreReadBack) {
  const TemporaryFolder folder;
  const std::vector<std::vector<Index>> shapes{{}, {0}, {3}, {2, 3}, {1, 0, 4}, {2, 1, 3, 1, 2}};
  for (const DataType type : {DataType::f32, DataType::f64, DataType::f16}) {
    for (const auto& shape : shapes) {
      const std::string header = npy_header_bytes(type, shape);
      EXPECT_EQ(header.size() % 64, 0u);
      EXPECT_EQ(header.back(), '\n');
      Index bytes = size_of(type);
      for (const Index extent : shape) bytes *= extent;
      const NpyHeader read =
          read_npy_header(folder.save("x.npy", header + std::string(static_cast<std::size_t>(bytes), 'x')));
      EXPECT_EQ(read.type, type);
      EXPECT_EQ(read.shape, shape);
      EXPECT_EQ(read.data_offset, static_cast<Index>(header.size()));
      EXPECT_EQ(read.element_count() * size_of(type), bytes);
    }
  }
}

TEST(NpyHeader, VeryLongShapeTakesFormatTwo) {
  const TemporaryFolder folder;
  const std::vector<Index> shape(30000, 1);
  const std::string header = npy_header_bytes(DataType::f32, shape);
  EXPECT_EQ(header[6], '\2');
  EXPECT_EQ(read_npy_header(folder.save("x.npy", header + "data")).shape, shape);
}

TEST(NpyHeader, AcceptsWhatNumpyMayWrite) {
  const TemporaryFolder folder;
  const std::string data = bytes_of({1, 2, 3, 4, 5, 6});
  const std::vector<std::string> headers{
      "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }      \n",
      "{'shape': (2, 3), 'fortran_order': False, 'descr': '<f4'}",
      "{\"descr\":\"<f4\",\"fortran_order\":False,\"shape\":(2,3,)}",
      "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L), }\n",
  };
  for (const std::string& header : headers) {
    for (const int major : {1, 2, 3}) {
      const NpyHeader read = read_npy_header(folder.save("x.npy", file_with(major, header, data)));
      EXPECT_EQ(read.type, DataType::f32);
      EXPECT_EQ(read.shape, (std::vector<Index>{2, 3}));
    }
  }
}

TEST(NpyHeader, OrderOfAVectorDoesNotMatter) {
  const TemporaryFolder folder;
  const std::string header = "{'descr': '<f4', 'fortran_order': True, 'shape': (3,), }";
  EXPECT_EQ(read_npy_header(folder.save("x.npy", file_with(1, header, bytes_of({1, 2, 3})))).element_count(), 3);
}

TEST(NpyHeader, ShowsNothingOfAFileThatATerminalActsOn) {
  const TemporaryFolder folder;
  const std::string header = "{'descr': '<f4\nline\x1b[31m\xff', 'fortran_order': False, 'shape': (1,), }";
  try {
    read_npy_header(folder.save("x.npy", file_with(1, header, bytes_of({1}))));
    FAIL() << "accepted";
  } catch (const LocalFailure& failure) {
    EXPECT_NE(std::string(failure.what()).find("dtype '<f4?line?[31m?'"), std::string::npos) << failure.what();
  }
}

TEST(NpyElements, AnyRangeIsReadFromItsPlace) {
  const TemporaryFolder folder;
  std::vector<float> values(60);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const std::string path = folder.save("x.npy", npy_header_bytes(DataType::f32, {20, 3}) + bytes_of(values));
  const NpyHeader header = read_npy_header(path);
  for (Index first = 0; first <= 60; first += 7) {
    for (Index count = 0; first + count <= 60; count += 5) {
      std::vector<float> got(static_cast<std::size_t>(count), -1.0F);
      read_npy_elements(path, header, first, count, got.data());
      EXPECT_EQ(got, std::vector<float>(values.begin() + first, values.begin() + first + count));
    }
  }
}

TEST(NpyElements, AFileThatBecameShorterIsAFailure) {
  const TemporaryFolder folder;
  const std::string whole = npy_header_bytes(DataType::f32, {3}) + bytes_of({1, 2, 3});
  const std::string path = folder.save("x.npy", whole);
  const NpyHeader header = read_npy_header(path);
  folder.save("x.npy", whole.substr(0, whole.size() - 1));
  std::vector<float> got(3);
  EXPECT_THROW(read_npy_elements(path, header, 0, 3, got.data()), LocalFailure);
}

/// Whatever is done to the bytes, the header is either refused by LocalFailure or describes exactly what is in the
/// file.
TEST(NpyHeader, DamagedFilesAreRefusedOrConsistent) {
  const TemporaryFolder folder;
  const std::string whole =
      file_with(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n", bytes_of({1, 2, 3, 4, 5, 6}));
  constexpr unsigned kSeed = 20240501;
  std::mt19937 random(kSeed);
  const std::string likely = "'\"{}(),:0123456789-<>fF4 8TL\n[]\\";
  int refused = 0;
  for (int round = 0; round < 1500; ++round) {
    std::string bytes = whole;
    for (auto edits = 1 + random() % 3; edits > 0; --edits) {
      const std::size_t at = random() % bytes.size();
      const char byte = random() % 4 == 0 ? static_cast<char>(random() % 256) : likely[random() % likely.size()];
      switch (random() % 4) {
        case 0:
          bytes.erase(at, 1 + random() % 8);
          if (bytes.empty()) bytes.push_back('x');
          break;
        case 1:
          bytes.insert(at, 1, byte);
          break;
        default:
          bytes[at] = byte;
      }
    }
    try {
      const NpyHeader header = read_npy_header(folder.save("x.npy", bytes));
      EXPECT_EQ(header.data_offset + header.element_count() * size_of(header.type), static_cast<Index>(bytes.size()))
          << "seed " << kSeed << ", round " << round;
    } catch (const LocalFailure& failure) {
      EXPECT_EQ(failure.code(), kBadData);
      ++refused;
    }
  }
  EXPECT_GT(refused, 750);
}

}  // namespace
}  // namespace syncbn::cli
