// SPDX-License-Identifier: MIT
// Format: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html, "binary version".
#include "cifar.hpp"

#include <algorithm>

#include "errors.hpp"
#include "input_file.hpp"

namespace syncbn::train {

namespace {

namespace fs = std::filesystem;

constexpr ImageShape kShape{3, 32, 32};
constexpr std::size_t kImageBytes = 3 * 32 * 32;
constexpr std::size_t kRecordBytes = 1 + kImageBytes;

constexpr const char* kTrainFiles[] = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
                                       "data_batch_5.bin"};
constexpr const char* kTestFile = "test_batch.bin";

std::vector<std::string> file_names() {
  std::vector<std::string> names(std::begin(kTrainFiles), std::end(kTrainFiles));
  names.emplace_back(kTestFile);
  return names;
}

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

/// The whole file, whose size and beginning make sense.
std::vector<std::uint8_t> read_records(const fs::path& path) {
  InputFile file(path);
  const std::uint64_t size = file.bytes_on_disk();
  if (size == 0) file.fail("is empty, wanted records of CIFAR-10");
  if (size > kMaxContentBytes) {
    file.fail("has " + std::to_string(size) + " bytes, more than the limit of " + std::to_string(kMaxContentBytes));
  }
  if (file.is_gzip()) file.fail("is gzip-compressed, wanted records of CIFAR-10; unpack it");
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(size));
  if (file.read(bytes.data(), bytes.size()) < bytes.size()) file.fail("became shorter while it was read");
  file.refuse_web_page(bytes[0], "records of CIFAR-10");
  if (size % kRecordBytes != 0) {
    file.fail("has " + std::to_string(size) + " bytes, wanted a multiple of " + std::to_string(kRecordBytes) +
              " (a label and 3 x 32 x 32 pixels)");
  }
  for (std::size_t at = 0; at < bytes.size(); at += kRecordBytes) {
    if (bytes[at] < kClassCount) continue;
    file.fail("has label " + std::to_string(bytes[at]) + " for image " + std::to_string(at / kRecordBytes) +
              ", wanted 0 to " + std::to_string(kClassCount - 1));
  }
  return bytes;
}

}  // namespace

std::optional<fs::path> find_cifar_folder(const fs::path& folder) {
  const std::vector<std::string> names = file_names();
  for (const fs::path& place : {folder, folder / "cifar-10-batches-bin"}) {
    if (std::any_of(names.begin(), names.end(), [&](const std::string& name) { return is_there(place / name); })) {
      return place;
    }
  }
  return std::nullopt;
}

void append_cifar_batch(const fs::path& path, LabelledImages& images) {
  const std::vector<std::uint8_t> bytes = read_records(path);
  images.shape = kShape;
  images.count += static_cast<Index>(bytes.size() / kRecordBytes);
  images.pixels.reserve(static_cast<std::size_t>(images.count) * kImageBytes);
  for (auto record = bytes.begin(); record != bytes.end(); record += kRecordBytes) {
    images.labels.push_back(*record);
    images.pixels.insert(images.pixels.end(), record + 1, record + kRecordBytes);
  }
}

DataSet load_cifar_folder(const fs::path& folder) {
  std::string missing;
  for (const std::string& name : file_names()) {
    if (!is_there(folder / name)) missing += (missing.empty() ? "" : ", ") + name;
  }
  if (!missing.empty()) throw DataError("the data folder " + folder.string() + " has no " + missing);

  DataSet data;
  data.name = folder.string();
  for (const char* name : kTrainFiles) append_cifar_batch(folder / name, data.train);
  append_cifar_batch(folder / kTestFile, data.test);
  return data;
}

}  // namespace syncbn::train
