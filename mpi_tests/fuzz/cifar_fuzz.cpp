// SPDX-License-Identifier: MIT
// One batch file of CIFAR-10.
#include <algorithm>

#include "fuzz_target.hpp"
#include "train/cifar.hpp"
#include "train/errors.hpp"

using namespace syncbn::train;
using syncbn::fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static syncbn::fuzz::FileOfBytes file;
  file.set(data, size);
  LabelledImages found;
  try {
    append_cifar_batch(file.path(), found);
    append_cifar_batch(file.path(), found);
    const std::size_t records = size / 3073;
    require(size > 0 && size % 3073 == 0, "only whole records are taken");
    require(found.count == static_cast<syncbn::Index>(2 * records), "the count is that of the file's size, twice");
    require(found.pixels.size() == 2 * records * 3072 && found.labels.size() == 2 * records, "nothing is lost");
    const std::uint8_t* last = data + (records - 1) * 3073;
    require(found.labels.back() == *last && *last < kClassCount, "the last label is the file's");
    require(std::equal(last + 1, last + 3073, found.pixels.end() - 3072), "the last image is the file's");
  } catch (const DataError& error) {
    syncbn::fuzz::require_sentence(error.what(), file.path());
    require(found.count == 0, "a file that is refused once is refused at once");
  }
  return 0;
}
