// SPDX-License-Identifier: MIT
#include "syncbn/checkpoint.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint/safetensors.hpp"
#include "syncbn/error.hpp"
#include "syncbn/half.hpp"

namespace syncbn {
namespace {

using checkpoint::SafetensorsHeader;
using checkpoint::TensorEntry;

std::string name_of(const NamedLayer& layer, const char* what) {
  return layer.prefix.empty() ? what : layer.prefix + "." + what;
}

/// A layer's vectors under PyTorch's names. (The layer is the caller's: const is what is done with it.)
struct NamedVector {
  const char* name;
  ChannelVector& (BatchNorm::*vector)() noexcept;
};
constexpr NamedVector kVectors[] = {{"weight", &BatchNorm::gamma},
                                    {"bias", &BatchNorm::beta},
                                    {"running_mean", &BatchNorm::running_mean},
                                    {"running_var", &BatchNorm::running_var}};
constexpr const char* kBatches = "num_batches_tracked";

// ---- writing ----

template <class T>
void append(std::string& bytes, const T* values, Index count) {
  bytes.append(reinterpret_cast<const char*>(values), static_cast<std::size_t>(count) * sizeof(T));
}

/// Where a file of this path is, or would be: behind symbolic links, which stay.
std::string behind_links(const std::string& path) {
  std::error_code error;
  const std::filesystem::path target = std::filesystem::weakly_canonical(path, error);
  return error ? path : target.string();
}

/// The permissions of the file that is to be replaced, if there is one. Refuses what a file must not replace.
std::optional<mode_t> mode_of_old(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  if (!S_ISREG(status.st_mode))
    throw StateError("[save_safetensors] " + path + " is not a file that could be replaced");
  return status.st_mode & 0777;
}

bool write_to_disk(int file, const std::string& bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const ssize_t written = ::write(file, bytes.data() + at, bytes.size() - at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    at += static_cast<std::size_t>(written);
  }
  return ::fsync(file) == 0;
}

/// Written beside it, brought to the disk, and renamed: whoever opens the path finds the old file or the new one.
void write_whole(const std::string& path, const std::string& bytes) {
  const std::string target = behind_links(path);
  const std::string temporary = target + ".tmp" + std::to_string(::getpid());
  const std::optional<mode_t> mode = mode_of_old(target);
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode.value_or(0666));
  bool is_good = file >= 0 && (!mode || ::fchmod(file, *mode) == 0) && write_to_disk(file, bytes);
  if (file >= 0) is_good = ::close(file) == 0 && is_good;
  if (!is_good || std::rename(temporary.c_str(), target.c_str()) != 0) {
    const std::string reason = std::strerror(errno);
    ::unlink(temporary.c_str());
    throw StateError("[save_safetensors] " + path + " cannot be written: " + reason);
  }
}

// ---- reading ----

/// The numbers of a tensor of floating-point numbers, as doubles.
std::vector<double> numbers_of(const std::string& type, const std::string& bytes) {
  std::vector<double> numbers;
  const auto convert = [&](auto zero) {
    using T = decltype(zero);
    numbers.resize(bytes.size() / sizeof(T));
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      T value;
      std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
      numbers[i] = static_cast<double>(value);
    }
  };
  if (type == "F32") convert(float{});
  if (type == "F64") convert(double{});
  if (type == "F16") convert(float16());
  if (type == "BF16") convert(bfloat16());
  return numbers;
}

class Reader {
 public:
  explicit Reader(const std::string& path)
      : path_(path), header_(checkpoint::read_safetensors_header(path)), file_(path, std::ios::binary) {}

  /// C numbers.
  std::vector<double> vector(const std::string& name, Index channels) {
    const TensorEntry* entry = header_.find(name);
    if (entry == nullptr) refuse("has no tensor '" + name + "'");
    if (entry->shape != std::vector<std::uint64_t>{static_cast<std::uint64_t>(channels)}) {
      refuse("has a tensor '" + name + "' of shape " + text_of(entry->shape) + ", the layer has " +
             std::to_string(channels) + " channels");
    }
    const std::vector<double> numbers = numbers_of(entry->type, bytes_of(*entry));
    if (numbers.empty()) refuse("has a tensor '" + name + "' of " + entry->type + ", wanted F32, F64, BF16 or F16");
    return numbers;
  }

  /// One number that is not negative; -1 if there is none of this name.
  Index count(const std::string& name) {
    const TensorEntry* entry = header_.find(name);
    if (entry == nullptr) return -1;
    std::int64_t value = -1;
    if (entry->type == "I64" && entry->end - entry->begin == sizeof value) {
      std::memcpy(&value, bytes_of(*entry).data(), sizeof value);
    }
    if (value < 0) refuse("has a tensor '" + name + "' that is not one I64 of at least 0");
    return value;
  }

 private:
  [[noreturn]] void refuse(const std::string& text) const {
    throw StateError("[load_safetensors] " + path_ + " " + text);
  }

  static std::string text_of(const std::vector<std::uint64_t>& shape) {
    std::string text = "(";
    for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    return text + ")";
  }

  std::string bytes_of(const TensorEntry& entry) {
    std::string bytes(entry.end - entry.begin, '\0');
    file_.seekg(static_cast<std::streamoff>(header_.data_offset + entry.begin));
    file_.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!file_) refuse("cannot be read");
    return bytes;
  }

  std::string path_;
  SafetensorsHeader header_;
  std::ifstream file_;
};

/// What a file has for one layer.
struct LayerNumbers {
  std::vector<double> vectors[4];
  Index batches = -1;
};

}  // namespace

void save_safetensors(const std::string& path, const std::vector<NamedLayer>& layers) {
  std::vector<TensorEntry> entries;
  std::string data;
  std::set<std::string> names;
  const auto add = [&](std::string name, const char* type, std::vector<std::uint64_t> shape) {
    if (!names.insert(name).second) {
      throw StateError("[save_safetensors] two layers have the name '" + name + "'");
    }
    entries.push_back({std::move(name), type, std::move(shape), 0, 0});
  };
  // The widest first, or an odd number of f32 would leave what follows unaligned.
  for (const NamedLayer& named : layers) {
    if (!named.layer->options().track_running_stats) continue;
    const std::int64_t batches = named.layer->num_batches_tracked();
    add(name_of(named, kBatches), "I64", {});
    append(data, &batches, 1);
  }
  for (const DataType type : {DataType::f64, DataType::f32}) {
    for (const NamedLayer& named : layers) {
      for (const NamedVector& what : kVectors) {
        const ChannelVector& vector = (named.layer->*what.vector)();
        if (vector.size() == 0 || vector.type() != type) continue;
        add(name_of(named, what.name), type == DataType::f64 ? "F64" : "F32",
            {static_cast<std::uint64_t>(vector.size())});
        type == DataType::f64 ? append(data, vector.data<double>(), vector.size())
                              : append(data, vector.data<float>(), vector.size());
      }
    }
  }
  write_whole(path, checkpoint::safetensors_header_bytes(entries) + data);
}

void load_safetensors(const std::string& path, const std::vector<NamedLayer>& layers) {
  Reader reader(path);
  std::vector<LayerNumbers> found(layers.size());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    for (std::size_t k = 0; k < std::size(kVectors); ++k) {
      const Index channels = (layers[i].layer->*kVectors[k].vector)().size();
      if (channels > 0) found[i].vectors[k] = reader.vector(name_of(layers[i], kVectors[k].name), channels);
    }
    if (layers[i].layer->options().track_running_stats) found[i].batches = reader.count(name_of(layers[i], kBatches));
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    for (std::size_t k = 0; k < std::size(kVectors); ++k) {
      ChannelVector& vector = (layers[i].layer->*kVectors[k].vector)();
      for (std::size_t c = 0; c < found[i].vectors[k].size(); ++c)
        vector.set(static_cast<Index>(c), found[i].vectors[k][c]);
    }
    if (found[i].batches >= 0) layers[i].layer->set_num_batches_tracked(found[i].batches);
  }
}

}  // namespace syncbn
