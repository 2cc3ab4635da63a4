// SPDX-License-Identifier: MIT
// Not a reader: a fault that fuzzer and sanitizer must find, or they are not at work.
#include <cstddef>
#include <cstdint>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 4 || data[0] != 'f' || data[1] != 'u' || data[2] != 'z' || data[3] != 'z') return 0;
  const std::vector<std::uint8_t> copy(data, data + size);
  const volatile std::uint8_t* bytes = copy.data();
  return bytes[size] == 0 ? 0 : 0;  // one byte too far
}
