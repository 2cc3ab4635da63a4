// SPDX-License-Identifier: MIT
// Numbers as the bytes of a file: little-endian, whatever the machine is.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace syncbn::train {

using Bytes = std::vector<char>;

namespace detail {

template <class T>
T in_file_order(T value) {
  if constexpr (std::endian::native == std::endian::big) {
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    for (std::size_t i = 0; i < sizeof(T) / 2; ++i) std::swap(bytes[i], bytes[sizeof(T) - 1 - i]);
    std::memcpy(&value, bytes, sizeof(T));
  }
  return value;
}

}  // namespace detail

class ByteWriter {
 public:
  explicit ByteWriter(Bytes& bytes) : bytes_(bytes) {}

  template <class T>
  void put(T value) {
    static_assert(std::is_arithmetic_v<T>);
    const T turned = detail::in_file_order(value);
    append(&turned, sizeof(T));
  }
  template <class T>
  void put_all(const std::vector<T>& values) {
    for (const T value : values) put(value);
  }
  void put_text(const std::string& text) { append(text.data(), text.size()); }

 private:
  void append(const void* data, std::size_t count) {
    const std::size_t end = bytes_.size();
    bytes_.resize(end + count);
    std::memcpy(bytes_.data() + end, data, count);
  }

  Bytes& bytes_;
};

/// The caller has made sure that there are as many bytes as are taken; else std::out_of_range.
class ByteReader {
 public:
  ByteReader(const char* data, std::size_t bytes) : at_(data), left_(bytes) {}

  template <class T>
  T get() {
    static_assert(std::is_arithmetic_v<T>);
    if (left_ < sizeof(T)) throw std::out_of_range("ByteReader");
    T value;
    std::memcpy(&value, at_, sizeof(T));
    at_ += sizeof(T);
    left_ -= sizeof(T);
    return detail::in_file_order(value);
  }
  template <class T>
  std::vector<T> get_all(std::size_t count) {
    if (left_ / sizeof(T) < count) throw std::out_of_range("ByteReader");
    std::vector<T> values(count);
    for (T& value : values) value = get<T>();
    return values;
  }

 private:
  const char* at_;
  std::size_t left_;
};

}  // namespace syncbn::train
