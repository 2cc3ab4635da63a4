// SPDX-License-Identifier: MIT
// A safetensors file: its header, and the header written anew.
#include "checkpoint/safetensors.hpp"
#include "fuzz_target.hpp"
#include "syncbn/error.hpp"

using namespace syncbn::checkpoint;
using syncbn::fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static syncbn::fuzz::FileOfBytes file;
  file.set(data, size);
  try {
    SafetensorsHeader header = read_safetensors_header(file.path());
    std::uint64_t at = 0;
    for (const TensorEntry& tensor : header.tensors) {
      require(tensor.begin == at && tensor.end >= at, "tensors lie one behind the other");
      at = tensor.end;
      require(header.find(tensor.name)->end == tensor.end, "a name is one tensor's");
    }
    require(header.data_offset + at == size, "header and tensors are the whole file");

    std::string again = safetensors_header_bytes(header.tensors);
    again.resize(again.size() + at);
    file.set(reinterpret_cast<const std::uint8_t*>(again.data()), again.size());
    const SafetensorsHeader second = read_safetensors_header(file.path());
    require(second.tensors.size() == header.tensors.size(), "what is written is what was read");
    for (const TensorEntry& tensor : header.tensors) {
      const TensorEntry* same = second.find(tensor.name);
      require(same != nullptr && same->type == tensor.type && same->shape == tensor.shape &&
                  same->begin == tensor.begin && same->end == tensor.end,
              "what is written is what was read");
    }
  } catch (const syncbn::StateError& error) {
    syncbn::fuzz::require_sentence(error.what(), file.path());
  }
  return 0;
}
