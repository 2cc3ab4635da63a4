// SPDX-License-Identifier: MIT
#include <cstdlib>
#include <cstring>

#include "kernels/tables.hpp"

namespace syncbn::kernels {
namespace {

constexpr Isa kBestFirst[] = {Isa::avx512, Isa::avx2, Isa::native, Isa::scalar};

IsaChoice choose() {
  const char* wanted = std::getenv("SYNCBN_ISA");
  const bool asks = wanted != nullptr && *wanted != '\0';
  for (const Isa isa : kBestFirst) {
    const bool is_meant = !asks || std::strcmp(wanted, name_of(isa)) == 0;
    if (is_meant && table_for(DataType::f32, isa) != nullptr) return {isa, true};
  }
  for (const Isa isa : kBestFirst) {
    if (table_for(DataType::f32, isa) != nullptr) return {isa, false};
  }
  return {Isa::scalar, false};
}

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return "scalar";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::native:
      return "native";
  }
  return "unknown";
}

IsaChoice chosen_isa() {
  static const IsaChoice choice = choose();
  return choice;
}

const KernelTable* table_for(DataType type, Isa isa) {
  return isa == Isa::scalar ? &plain_table(type) : vector_table(type, isa);
}

const KernelTable& table_for(DataType type) { return *table_for(type, chosen_isa().isa); }

}  // namespace syncbn::kernels
