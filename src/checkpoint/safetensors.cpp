// SPDX-License-Identifier: MIT
#include "checkpoint/safetensors.hpp"

#include <algorithm>
#include <fstream>
#include <set>

#include <nlohmann/json.hpp>

#include "syncbn/error.hpp"

namespace syncbn::checkpoint {
namespace {

using Json = nlohmann::json;

/// As in the format's own implementation.
constexpr std::uint64_t kMostHeaderBytes = 100'000'000;

[[noreturn]] void refuse(const std::string& path, const std::string& text) {
  throw StateError("[safetensors] " + path + " " + text);
}

std::string quoted(const std::string& name) {
  std::string shown = name.substr(0, 80);
  for (char& c : shown) {
    if (c < ' ' || c > '~') c = '?';
  }
  return "'" + shown + (name.size() > 80 ? "...'" : "'");
}

std::uint64_t length_at_start(std::ifstream& file) {
  unsigned char bytes[8] = {};
  file.read(reinterpret_cast<char*>(bytes), 8);
  std::uint64_t length = 0;
  for (int k = 7; k >= 0; --k) length = length << 8 | bytes[k];
  return length;
}

/// The object, each of whose names stands once: with a name twice, readers would not agree which tensor it is.
Json parsed(const std::string& path, const std::string& text) {
  std::set<std::string> names;
  bool is_twice = false;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth == 1 && event == Json::parse_event_t::key) is_twice |= !names.insert(value.get<std::string>()).second;
    return true;
  };
  Json object = Json::parse(text, watch, false);
  if (!object.is_object()) refuse(path, "has a header that is no JSON object");
  if (is_twice) refuse(path, "has a header with the same name twice");
  return object;
}

bool multiply(std::uint64_t& product, std::uint64_t factor) {
  return !__builtin_mul_overflow(product, factor, &product);
}

TensorEntry entry_of(const std::string& path, const std::string& name, const Json& value) {
  const auto wrong = [&](const char* what) { refuse(path, "says of tensor " + quoted(name) + " " + what); };
  TensorEntry entry;
  entry.name = name;
  if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") || !value.contains("data_offsets")) {
    wrong("not its dtype, shape and data_offsets");
  }
  const Json& type = value["dtype"];
  const Json& shape = value["shape"];
  const Json& offsets = value["data_offsets"];
  if (!type.is_string() || bytes_of_type(type.get<std::string>()) == 0) wrong("a dtype that there is not");
  entry.type = type.get<std::string>();
  std::uint64_t bytes = bytes_of_type(entry.type);
  if (!shape.is_array()) wrong("a shape that is no list");
  for (const Json& extent : shape) {
    if (!extent.is_number_unsigned()) wrong("an extent that is no whole number");
    entry.shape.push_back(extent.get<std::uint64_t>());
    if (!multiply(bytes, entry.shape.back())) wrong("a shape of more bytes than can be addressed");
  }
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    wrong("data_offsets that are not two whole numbers");
  }
  entry.begin = offsets[0].get<std::uint64_t>();
  entry.end = offsets[1].get<std::uint64_t>();
  if (entry.end < entry.begin || entry.end - entry.begin != bytes) wrong("data_offsets that do not fit its shape");
  return entry;
}

}  // namespace

std::uint64_t bytes_of_type(const std::string& type) {
  static constexpr struct {
    const char* name;
    std::uint64_t bytes;
  } kTypes[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"I16", 2}, {"U16", 2}, {"F16", 2},
                {"BF16", 2}, {"I32", 4}, {"U32", 4}, {"F32", 4},     {"F64", 8},     {"I64", 8}, {"U64", 8}};
  for (const auto& known : kTypes) {
    if (type == known.name) return known.bytes;
  }
  return 0;
}

const TensorEntry* SafetensorsHeader::find(const std::string& name) const {
  for (const TensorEntry& tensor : tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

SafetensorsHeader read_safetensors_header(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff end = file ? static_cast<std::streamoff>(file.tellg()) : -1;
  if (end < 0) refuse(path, "cannot be read");
  const auto size = static_cast<std::uint64_t>(end);
  if (size < 8) refuse(path, "has " + std::to_string(size) + " bytes, too few for a safetensors file");
  file.seekg(0);
  const std::uint64_t length = length_at_start(file);
  if (length > kMostHeaderBytes || length > size - 8) {
    refuse(path, "says that its header has " + std::to_string(length) + " bytes, the file has " + std::to_string(size) +
                     ": it is cut off, or no safetensors file");
  }
  std::string text(length, '\0');
  file.read(text.data(), static_cast<std::streamsize>(length));
  if (!file) refuse(path, "cannot be read");

  SafetensorsHeader header;
  header.data_offset = 8 + length;
  const Json object = parsed(path, text);
  for (const auto& [name, value] : object.items()) {
    if (name != "__metadata__") header.tensors.push_back(entry_of(path, name, value));
  }
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  std::uint64_t at = 0;
  for (const TensorEntry& tensor : header.tensors) {
    if (tensor.begin != at) refuse(path, "has a gap or an overlap in front of tensor " + quoted(tensor.name));
    at = tensor.end;
  }
  if (at != size - header.data_offset) {
    refuse(path, "has " + std::to_string(size - header.data_offset) + " bytes of data, its header wants " +
                     std::to_string(at) + (at > size - header.data_offset ? ": it is cut off" : ""));
  }
  return header;
}

std::string safetensors_header_bytes(std::vector<TensorEntry>& tensors) {
  Json object = {{"__metadata__", {{"format", "pt"}}}};
  std::uint64_t at = 0;
  for (TensorEntry& tensor : tensors) {
    std::uint64_t bytes = bytes_of_type(tensor.type);
    for (const std::uint64_t extent : tensor.shape) bytes *= extent;
    tensor.begin = at;
    tensor.end = at += bytes;
    object[tensor.name] = {
        {"dtype", tensor.type}, {"shape", tensor.shape}, {"data_offsets", {tensor.begin, tensor.end}}};
  }
  std::string text = object.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data are aligned
  std::string bytes;
  for (int k = 0; k < 8; ++k) bytes += static_cast<char>(text.size() >> 8 * k & 0xff);
  return bytes + text;
}

}  // namespace syncbn::checkpoint
