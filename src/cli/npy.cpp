// SPDX-License-Identifier: MIT
#include "npy.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

#include "failure.hpp"
#include "file.hpp"

namespace syncbn::cli {
namespace {

static_assert(std::endian::native == std::endian::little, "data is read and written as it lies in memory");

constexpr std::string_view kMagic("\x93NUMPY", 6);
constexpr Index kPreambleBytes = 8;  // magic, major and minor version; then 2 or 4 bytes of header length
constexpr Index kMaxHeaderBytes = Index{1} << 20;

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw LocalFailure(kBadData, "'" + path + "' " + why);
}

/// A file may bring a text of any length into a message, with line breaks and whatever a terminal acts on.
std::string harmless(const std::string& text) {
  constexpr std::size_t kMost = 40;
  std::string shown = text.substr(0, kMost);
  std::replace_if(
      shown.begin(), shown.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text.size() <= kMost ? shown : shown + "...";
}

/// A tuple as Python writes it.
std::string tuple_text(const std::vector<Index>& values) {
  std::string text = "(";
  for (std::size_t i = 0; i < values.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(values[i]);
  return text + (values.size() == 1 ? ",)" : ")");
}

/// The header's Python literal: a dict of exactly 'descr', 'fortran_order' and 'shape', in any order.
struct HeaderDict {
  std::string descr;
  bool fortran_order = false;
  std::vector<Index> shape;
};

/// Reads that dict and nothing else of Python. Throws LocalFailure for anything unexpected.
class HeaderParser {
 public:
  HeaderParser(const std::string& path, std::string_view text) : path_(path), rest_(text) {}

  HeaderDict parse() {
    HeaderDict dict;
    bool has_descr = false, has_order = false, has_shape = false;
    expect('{');
    while (!accept('}')) {
      const std::string key = string_literal();
      expect(':');
      if (key == "descr" && !has_descr) {
        dict.descr = descr_literal();
        has_descr = true;
      } else if (key == "fortran_order" && !has_order) {
        dict.fortran_order = bool_literal();
        has_order = true;
      } else if (key == "shape" && !has_shape) {
        dict.shape = shape_literal();
        has_shape = true;
      } else {
        malformed();
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_space();
    if (!rest_.empty() || !has_descr || !has_order || !has_shape) malformed();
    return dict;
  }

 private:
  [[noreturn]] void malformed() const {
    refuse(path_, "has a malformed .npy header, wanted a dict of 'descr', 'fortran_order' and 'shape'");
  }

  void skip_space() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\n' || rest_.front() == '\t')) {
      rest_.remove_prefix(1);
    }
  }

  bool accept(char wanted) {
    skip_space();
    if (rest_.empty() || rest_.front() != wanted) return false;
    rest_.remove_prefix(1);
    return true;
  }

  void expect(char wanted) {
    if (!accept(wanted)) malformed();
  }

  bool accept_word(std::string_view word) {
    skip_space();
    if (rest_.substr(0, word.size()) != word) return false;
    rest_.remove_prefix(word.size());
    return true;
  }

  std::string string_literal() {
    const char quote = accept('\'') ? '\'' : '"';
    if (quote == '"') expect('"');
    const std::size_t end = rest_.find(quote);
    if (end == std::string_view::npos || rest_.substr(0, end).find('\\') != std::string_view::npos) malformed();
    std::string value(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return value;
  }

  std::string descr_literal() {
    skip_space();
    if (!rest_.empty() && rest_.front() == '[') refuse(path_, "holds a structured dtype, wanted f2, f4 or f8 numbers");
    return string_literal();
  }

  bool bool_literal() {
    if (accept_word("True")) return true;
    if (!accept_word("False")) malformed();
    return false;
  }

  Index extent_literal() {
    skip_space();
    if (!rest_.empty() && rest_.front() == '-') refuse(path_, "has a negative extent in its shape");
    if (rest_.empty() || !is_digit(rest_.front())) malformed();
    Index value = 0;
    while (!rest_.empty() && is_digit(rest_.front())) {
      if (__builtin_mul_overflow(value, Index{10}, &value) ||
          __builtin_add_overflow(value, Index{rest_.front() - '0'}, &value)) {
        refuse(path_, "has an extent in its shape that does not fit 64 bits");
      }
      rest_.remove_prefix(1);
    }
    if (!rest_.empty() && rest_.front() == 'L') rest_.remove_prefix(1);  // as Python 2 wrote long integers
    return value;
  }

  /// A tuple: (), (5,), (5, 3), (5, 3,). Not (5), which is a number in Python.
  std::vector<Index> shape_literal() {
    std::vector<Index> shape;
    expect('(');
    bool comma = true;
    while (!accept(')')) {
      if (!comma) malformed();
      shape.push_back(extent_literal());
      comma = accept(',');
    }
    if (shape.size() == 1 && !comma) malformed();
    return shape;
  }

  static bool is_digit(char c) { return c >= '0' && c <= '9'; }

  const std::string& path_;
  std::string_view rest_;
};

DataType type_of_descr(const std::string& path, const std::string& descr) {
  if (descr == "<f4") return DataType::f32;
  if (descr == "<f8") return DataType::f64;
  if (descr == "<f2") return DataType::f16;
  if (descr == ">f2" || descr == ">f4" || descr == ">f8") {
    std::string little = descr;
    little.front() = '<';
    refuse(path, "holds big-endian numbers ('" + descr + "'), wanted '" + little + "': x.astype('" + little + "')");
  }
  refuse(path, "holds numbers of dtype '" + harmless(descr) + "', wanted '<f2', '<f4' or '<f8': x.astype('<f4')");
}

/// Bytes of the data; nullopt if that does not fit 64 bits. A shape with a 0 in it must also be sane without the 0, so
/// that products of a part of its extents cannot overflow later.
std::optional<Index> data_bytes(DataType type, const std::vector<Index>& shape) {
  Index bytes = size_of(type);
  bool is_empty = false;
  for (const Index extent : shape) {
    if (extent == 0) is_empty = true;
    if (extent != 0 && __builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
  }
  return is_empty ? 0 : bytes;
}

/// The little-endian header length after the preamble, and how many bytes it takes itself.
struct HeaderExtent {
  Index field_bytes;
  Index header_bytes;
};

HeaderExtent read_header_extent(const FileReader& file) {
  const std::string& path = file.path();
  unsigned char start[kPreambleBytes + 4] = {};
  const Index available = std::min<Index>(file.size(), sizeof start);
  file.read(0, available, start);
  if (available < kPreambleBytes || std::string_view(reinterpret_cast<const char*>(start), 6) != kMagic) {
    refuse(path, "is not a .npy file: it does not start with \\x93NUMPY");
  }
  const int major = start[6], minor = start[7];
  if (major < 1 || major > 3 || minor != 0) {
    refuse(path, "has .npy format version " + std::to_string(major) + "." + std::to_string(minor) +
                     ", wanted 1.0, 2.0 or 3.0");
  }
  const Index field_bytes = major == 1 ? 2 : 4;
  if (available < kPreambleBytes + field_bytes) refuse(path, "is truncated: it ends within its .npy header");
  Index header_bytes = 0;
  for (Index i = field_bytes; i-- > 0;) header_bytes = header_bytes << 8 | start[kPreambleBytes + i];
  return {field_bytes, header_bytes};
}

}  // namespace

Index NpyHeader::element_count() const noexcept {
  Index count = 1;
  for (const Index extent : shape) {
    if (extent == 0) return 0;
  }
  for (const Index extent : shape) count *= extent;
  return count;
}

std::string list_text(const std::vector<Index>& values) {
  constexpr std::size_t kMost = 8;
  constexpr std::size_t kShown = 4;
  const bool is_long = values.size() > kMost;
  std::string text;
  for (std::size_t i = 0; i < (is_long ? kShown : values.size()); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(values[i]);
  }
  return is_long ? text + ", ... " + std::to_string(values.size()) + " axes" : text;
}

std::string shape_text(const std::vector<Index>& shape) {
  std::string text = "(";
  text += list_text(shape);
  return text + (shape.size() == 1 ? ",)" : ")");
}

NpyHeader read_npy_header(const std::string& path) {
  const FileReader file(path);
  const HeaderExtent extent = read_header_extent(file);
  NpyHeader header;
  header.data_offset = kPreambleBytes + extent.field_bytes + extent.header_bytes;
  if (extent.header_bytes > kMaxHeaderBytes) {
    refuse(path, "says that its .npy header has " + std::to_string(extent.header_bytes) + " bytes, wanted at most " +
                     std::to_string(kMaxHeaderBytes));
  }
  if (header.data_offset > file.size()) refuse(path, "is truncated: it ends within its .npy header");

  std::string text(static_cast<std::size_t>(extent.header_bytes), '\0');
  file.read(kPreambleBytes + extent.field_bytes, extent.header_bytes, text.data());
  const HeaderDict dict = HeaderParser(path, text).parse();
  header.type = type_of_descr(path, dict.descr);
  header.shape = dict.shape;
  if (dict.fortran_order && dict.shape.size() > 1) {
    refuse(path, "is in Fortran order, wanted C order: np.save(path, np.ascontiguousarray(x))");
  }
  const std::optional<Index> bytes = data_bytes(header.type, header.shape);
  if (!bytes) refuse(path, "has shape " + shape_text(header.shape) + ", whose size does not fit 64 bits");
  const Index found = file.size() - header.data_offset;
  if (found != *bytes) {
    refuse(path, (found < *bytes ? "is truncated: " : "has trailing bytes: ") + std::to_string(found) +
                     " bytes of data, wanted " + std::to_string(*bytes) + " for " + shape_text(header.shape) + " " +
                     name_of(header.type));
  }
  return header;
}

void read_npy_elements(const std::string& path, const NpyHeader& header, Index first, Index count, void* out) {
  const Index width = size_of(header.type);
  FileReader(path).read(header.data_offset + first * width, count * width, out);
}

std::string npy_header_bytes(DataType type, const std::vector<Index>& shape) {
  const std::string dict = "{'descr': '<f" + std::to_string(size_of(type)) +
                           "', 'fortran_order': False, 'shape': " + tuple_text(shape) + ", }";
  constexpr std::size_t kAlignment = 64;
  const bool is_long = kPreambleBytes + 2 + dict.size() + kAlignment > 0xffff;
  const std::size_t field_bytes = is_long ? 4 : 2;
  const std::size_t unpadded = kPreambleBytes + field_bytes + dict.size() + 1;
  const std::size_t total = (unpadded + kAlignment - 1) / kAlignment * kAlignment;
  const std::size_t header_bytes = total - kPreambleBytes - field_bytes;

  std::string bytes(kMagic);
  bytes += is_long ? '\2' : '\1';
  bytes += '\0';
  for (std::size_t i = 0; i < field_bytes; ++i) bytes += static_cast<char>(header_bytes >> (8 * i) & 0xff);
  bytes += dict;
  bytes.append(total - bytes.size() - 1, ' ');
  return bytes + '\n';
}

}  // namespace syncbn::cli
