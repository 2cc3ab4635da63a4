// SPDX-License-Identifier: MIT
// Not zlib's gzread(): that passes over what stands behind the compressed data.
#include "input_file.hpp"

#include <algorithm>
#include <limits>
#include <new>

#include <zlib.h>

#include "errors.hpp"

namespace syncbn::train {

namespace {

constexpr std::size_t kChunkBytes = std::size_t{1} << 16;
constexpr std::uint8_t kGzipMagic[] = {0x1f, 0x8b};
constexpr int kGzipWindowBits = 15 + 16;  // zlib: any window, gzip header and trailer

}  // namespace

void InputFile::EndInflate::operator()(z_stream_s* stream) const noexcept {
  inflateEnd(stream);
  delete stream;
}

InputFile::InputFile(const std::filesystem::path& path) : name_(path.string()) {
  std::error_code error;
  // Asked before it is opened: opening a pipe would wait for somebody to write into it.
  if (!std::filesystem::is_regular_file(path, error)) fail("is not a regular file");
  bytes_on_disk_ = std::filesystem::file_size(path, error);
  file_.reset(std::fopen(name_.c_str(), "rb"));
  if (error || !file_) fail("cannot be opened");
  std::uint8_t start[2] = {};
  const std::size_t got = std::fread(start, 1, sizeof start, file_.get());
  if (std::fseek(file_.get(), 0, SEEK_SET) != 0) fail("cannot be read");
  if (got == sizeof start && std::equal(start, start + 2, kGzipMagic)) start_inflating();
}

InputFile::~InputFile() = default;

void InputFile::fail(const std::string& what) const { throw DataError(name_ + " " + what); }

void InputFile::refuse_web_page(std::uint8_t first, const std::string& wanted) const {
  if (first == '<') fail("is a web page (it begins with '<'), not " + wanted + "; download it again");
}

std::size_t InputFile::read(std::uint8_t* out, std::size_t bytes) {
  if (!is_gzip()) {
    const std::size_t got = std::fread(out, 1, bytes, file_.get());
    if (got < bytes && std::ferror(file_.get())) fail("cannot be read");
    return got;
  }
  std::size_t done = 0;
  while (done < bytes && !is_inflated_) {
    const std::size_t room = std::min<std::size_t>(bytes - done, std::numeric_limits<uInt>::max());
    inflater_->next_out = out + done;
    inflater_->avail_out = static_cast<uInt>(room);
    inflate_some();
    done += room - inflater_->avail_out;
  }
  return done;
}

void InputFile::start_inflating() {
  inflater_.reset(new z_stream());
  if (inflateInit2(inflater_.get(), kGzipWindowBits) != Z_OK) throw std::bad_alloc();
  compressed_.resize(kChunkBytes);
}

bool InputFile::fill() {
  if (inflater_->avail_in > 0) return true;
  const std::size_t got = std::fread(compressed_.data(), 1, compressed_.size(), file_.get());
  if (std::ferror(file_.get())) fail("cannot be read");
  inflater_->next_in = compressed_.data();
  inflater_->avail_in = static_cast<uInt>(got);
  return got > 0;
}

void InputFile::inflate_some() {
  if (!fill()) fail("is cut off: the gzip stream ends too early");
  switch (inflate(inflater_.get(), Z_NO_FLUSH)) {
    case Z_OK:
    case Z_BUF_ERROR:  // no progress without more input
      return;
    case Z_STREAM_END:
      start_next_member();
      return;
    case Z_MEM_ERROR:
      throw std::bad_alloc();
    default:
      fail("is damaged: the gzip data are not valid or do not match their check sum");
  }
}

void InputFile::start_next_member() {
  if (!fill()) {
    is_inflated_ = true;
  } else if (*inflater_->next_in != kGzipMagic[0]) {
    fail("is damaged: something that is not gzip follows the gzip data");
  } else if (inflateReset(inflater_.get()) != Z_OK) {
    fail("is damaged: the gzip data are not valid");
  }
}

}  // namespace syncbn::train
