// SPDX-License-Identifier: MIT
// IDX: big-endian header {magic, count[, rows, columns]}, then one byte per pixel or label.
#include "idx.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <optional>

#include <zlib.h>

#include "errors.hpp"

namespace syncbn::train {

namespace {

constexpr std::uint32_t kImageMagic = 0x00000803;  // unsigned bytes, 3 axes
constexpr std::uint32_t kLabelMagic = 0x00000801;  // unsigned bytes, 1 axis
constexpr std::uint64_t kMaxFileBytes = std::uint64_t{4} << 30;
constexpr std::uint32_t kMaxSide = 4096;
constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

/// A file that may be gzip-compressed; zlib tells by the first two bytes and hands other files through.
class InputFile {
 public:
  explicit InputFile(const std::filesystem::path& path) : name_(path.string()) {
    std::error_code error;
    if (!std::filesystem::is_regular_file(path, error)) fail("is not a regular file");
    file_.reset(gzopen(name_.c_str(), "rb"));
    if (!file_) fail("cannot be opened");
  }

  /// Up to `bytes` bytes; fewer only at the end of the file.
  std::size_t read(std::uint8_t* out, std::size_t bytes) {
    std::size_t done = 0;
    while (done < bytes) {
      const auto part = static_cast<unsigned>(std::min(bytes - done, kChunkBytes));
      const int got = gzread(file_.get(), out + done, part);
      if (got < 0) fail_reading();
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    if (done < bytes) {
      int code = Z_OK;
      gzerror(file_.get(), &code);
      if (code != Z_OK && code != Z_STREAM_END) fail_reading();
    }
    return done;
  }

  [[noreturn]] void fail(const std::string& what) const { throw DataError(name_ + " " + what); }

 private:
  struct Close {
    void operator()(gzFile file) const noexcept { gzclose(file); }
  };

  [[noreturn]] void fail_reading() const {
    int code = Z_OK;
    gzerror(file_.get(), &code);
    if (code == Z_BUF_ERROR) fail("is cut off: the gzip stream ends too early");
    if (code == Z_DATA_ERROR) fail("is damaged: the gzip data do not match their check sum");
    fail("cannot be read");
  }

  std::string name_;
  std::unique_ptr<std::remove_pointer_t<gzFile>, Close> file_;
};

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
  if (got >= 1 && header[0] == '<') {
    file.fail(std::string("is a web page (it begins with '<'), not IDX ") + kind + "; download it again");
  }
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
  if (bytes > kMaxFileBytes) {
    file.fail("claims " + std::to_string(bytes) + " bytes of data in its header, more than the limit of " +
              std::to_string(kMaxFileBytes));
  }
  std::vector<std::uint8_t> data;
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

/// `part` is "train" or "t10k", `kind` is "images" or "labels".
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

DataSet load_idx_folder(const std::filesystem::path& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    throw DataError("the data folder " + folder.string() +
                    (std::filesystem::exists(folder, error) ? " is not a folder" : " does not exist"));
  }
  std::array<std::filesystem::path, 4> files;
  std::string missing;
  std::size_t at = 0;
  for (const char* part : {"train", "t10k"}) {
    for (const char* kind : {"images", "labels"}) {
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
