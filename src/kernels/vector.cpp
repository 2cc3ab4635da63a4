// SPDX-License-Identifier: MIT
// Which tables with vectors this processor can use.
#include "kernels/tables.hpp"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace syncbn::kernels {
namespace {

// Asked of the compiler's own run-time support, so that the library needs Highway's headers alone.
#if defined(__x86_64__) || defined(__i386__)
bool has_f16c() {  // which clang 14 has no name for
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
// Asked once: where a hypervisor answers cpuid, that takes microseconds.
bool has_avx2() {
  static const bool has = [] {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && has_f16c();
  }();
  return has;
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd");
}
#endif

bool has(Isa isa) {
  switch (isa) {
#if defined(__x86_64__) || defined(__i386__)
    case Isa::avx512:
      return has_avx512();
    case Isa::avx2:
      return has_avx2();
#endif
    default:
      return isa == Isa::native;
  }
}

}  // namespace

const KernelTable* vector_table(DataType type, Isa isa) {
  if (!has(isa)) return nullptr;
  switch (type) {
    case DataType::f64:
      return vector_table_of<double>(isa);
    case DataType::bf16:
      return vector_table_of<bfloat16>(isa);
    case DataType::f16:
      return vector_table_of<float16>(isa);
    case DataType::f32:
      break;
  }
  return vector_table_of<float>(isa);
}

}  // namespace syncbn::kernels
