// SPDX-License-Identifier: MIT
// IDX: big-endian header {magic, count[, rows, columns]}, then one byte per pixel or label.
#include "idx.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <optional>

#include "errors.hpp"
#include "input_file.hpp"

namespace syncbn::train {

namespace {

constexpr std::uint32_t kImageMagic = 0x00000803;  // unsigned bytes, 3 axes
constexpr std::uint32_t kLabelMagic = 0x00000801;  // unsigned bytes, 1 axis
constexpr std::uint32_t kMaxSide = 4096;
constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

std::uint32_t big_endian(const std::uint8_t* bytes) {
  return (std::uint32_t{bytes[0]} << 24) | (std::uint32_t{bytes[1]} << 16) | (std::uint32_t{bytes[2]} << 8) | bytes[3];
}

std::string hex(std::uint32_t value) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "0x%08x", value);
  return text.data();
}

void check_magic(const InputFile& file, const std::uint8_t* header, std::size_t got, std::uint32_t wanted,
                 const char* kind) {
  if (got >= 1) file.refuse_web_page(header[0], std::string("IDX ") + kind);
  if (got < 4) file.fail(std::string("is too short to be IDX ") + kind + ": " + std::to_string(got) + " bytes");
  const std::uint32_t magic = big_endian(header);
  if (magic != wanted) {
    file.fail(std::string("is not IDX ") + kind + ": it begins with " + hex(magic) + ", wanted " + hex(wanted));
  }
}

/// The header's numbers behind the magic.
template <std::size_t Axes>
std::array<std::uint32_t, Axes> read_header(InputFile& file, std::uint32_t magic, const char* kind) {
  std::array<std::uint8_t, 4 + 4 * Axes> header{};
  const std::size_t got = file.read(header.data(), header.size());
  check_magic(file, header.data(), got, magic, kind);
  if (got < header.size()) file.fail("is cut off inside its header");
  std::array<std::uint32_t, Axes> extents{};
  for (std::size_t axis = 0; axis < Axes; ++axis) {
    extents[axis] = big_endian(header.data() + 4 + 4 * axis);
  }
  if (extents[0] == 0) file.fail(std::string("holds no ") + kind + ": its header says 0");
  return extents;
}

/// Exactly `bytes` bytes and then the end of the file.
std::vector<std::uint8_t> read_payload(InputFile& file, std::uint64_t bytes) {
  if (bytes > kMaxContentBytes) {
    file.fail("claims " + std::to_string(bytes) + " bytes of data in its header, more than the limit of " +
              std::to_string(kMaxContentBytes));
  }
  std::vector<std::uint8_t> data;
  if (!file.is_gzip()) data.reserve(static_cast<std::size_t>(std::min(bytes, file.bytes_on_disk())));
  while (data.size() < bytes) {
    const std::size_t done = data.size();
    const std::size_t part = std::min<std::uint64_t>(bytes - done, kChunkBytes);
    data.resize(done + part);
    const std::size_t got = file.read(data.data() + done, part);
    if (got < part) {
      file.fail("is cut off: its header promises " + std::to_string(bytes) + " bytes of data, it holds " +
                std::to_string(done + got));
    }
  }
  std::uint8_t extra = 0;
  if (file.read(&extra, 1) != 0) {
    file.fail("holds more than the " + std::to_string(bytes) + " bytes of data that its header promises");
  }
  return data;
}

void read_images(const std::filesystem::path& path, LabelledImages& out) {
  InputFile file(path);
  const auto [count, rows, columns] = read_header<3>(file, kImageMagic, "images");
  if (rows == 0 || columns == 0 || rows > kMaxSide || columns > kMaxSide) {
    file.fail("has images of " + std::to_string(rows) + " x " + std::to_string(columns) +
              " pixels in its header, wanted 1 to " + std::to_string(kMaxSide) + " each way");
  }
  out.count = count;
  out.shape = {1, rows, columns};
  out.pixels = read_payload(file, std::uint64_t{count} * rows * columns);  // < 2^56
}

void read_labels(const std::filesystem::path& path, LabelledImages& out) {
  InputFile file(path);
  const auto [count] = read_header<1>(file, kLabelMagic, "labels");
  if (count != out.count) {
    file.fail("has " + std::to_string(count) + " labels for " + std::to_string(out.count) + " images");
  }
  out.labels = read_payload(file, count);
  for (std::size_t i = 0; i < out.labels.size(); ++i) {
    if (out.labels[i] >= kClassCount) {
      file.fail("has label " + std::to_string(out.labels[i]) + " for image " + std::to_string(i) + ", wanted 0 to " +
                std::to_string(kClassCount - 1));
    }
  }
}

constexpr const char* kParts[] = {"train", "t10k"};
constexpr const char* kKinds[] = {"images", "labels"};

std::optional<std::filesystem::path> find_file(const std::filesystem::path& folder, const std::string& part,
                                               const std::string& kind) {
  const std::string code = kind == "images" ? "idx3-ubyte" : "idx1-ubyte";
  for (const char* separator : {"-", "."}) {
    for (const char* ending : {"", ".gz"}) {
      std::filesystem::path path = folder / (part + "-" + kind + separator + code + ending);
      std::error_code error;
      if (std::filesystem::exists(path, error)) return path;
    }
  }
  return std::nullopt;
}

}  // namespace

LabelledImages load_idx_pair(const std::filesystem::path& images, const std::filesystem::path& labels) {
  LabelledImages result;
  read_images(images, result);
  read_labels(labels, result);
  return result;
}

bool has_idx_files(const std::filesystem::path& folder) {
  for (const char* part : kParts) {
    for (const char* kind : kKinds) {
      if (find_file(folder, part, kind)) return true;
    }
  }
  return false;
}

DataSet load_idx_folder(const std::filesystem::path& folder) {
  std::array<std::filesystem::path, 4> files;
  std::string missing;
  std::size_t at = 0;
  for (const char* part : kParts) {
    for (const char* kind : kKinds) {
      if (auto path = find_file(folder, part, kind)) {
        files[at] = *path;
      } else {
        missing += std::string(missing.empty() ? "" : ", ") + part + "-" + kind +
                   (kind == std::string("images") ? "-idx3-ubyte[.gz]" : "-idx1-ubyte[.gz]");
      }
      ++at;
    }
  }
  if (!missing.empty()) throw DataError("the data folder " + folder.string() + " has no " + missing);

  DataSet data{folder.string(), load_idx_pair(files[0], files[1]), load_idx_pair(files[2], files[3])};
  if (!(data.train.shape == data.test.shape)) {
    throw DataError(files[2].string() + " has images of " + std::to_string(data.test.shape.height) + " x " +
                    std::to_string(data.test.shape.width) + " pixels, the training images have " +
                    std::to_string(data.train.shape.height) + " x " + std::to_string(data.train.shape.width));
  }
  return data;
}

}  // namespace syncbn::train
