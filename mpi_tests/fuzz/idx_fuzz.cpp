// SPDX-License-Identifier: MIT
// A pair of IDX files: the first byte says how long the labels' file is, which lies at the end.
#include <algorithm>

#include "fuzz_target.hpp"
#include "train/errors.hpp"
#include "train/idx.hpp"

using namespace syncbn::train;
using syncbn::fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static syncbn::fuzz::FileOfBytes images;
  static syncbn::fuzz::FileOfBytes labels;
  if (size == 0) return 0;
  const std::size_t label_bytes = std::min<std::size_t>(data[0], size - 1);
  const std::size_t image_bytes = size - 1 - label_bytes;
  images.set(data + 1, image_bytes);
  labels.set(data + 1 + image_bytes, label_bytes);
  try {
    const LabelledImages found = load_idx_pair(images.path(), labels.path());
    const auto count = static_cast<std::size_t>(found.count);
    require(count > 0 && found.shape.channels == 1 && found.shape.size() > 0, "there are images");
    require(found.pixels.size() == count * static_cast<std::size_t>(found.shape.size()),
            "pixels are those of all images");
    require(found.labels.size() == count, "each image has a label");
    require(
        std::all_of(found.labels.begin(), found.labels.end(), [](std::uint8_t label) { return label < kClassCount; }),
        "labels are classes");
  } catch (const DataError& error) {
    const std::string text = error.what();
    syncbn::fuzz::require_sentence(text, text.find(labels.path()) == 0 ? labels.path() : images.path());
  }
  return 0;
}
