// SPDX-License-Identifier: MIT
// The kernels with vectors: the same text compiled for each instruction set, by Highway.

// Two sets on x86-64; every other processor has the one that the compiler's flags name.
#ifdef SYNCBN_WITHOUT_AVX512  // where a compiler checks every access, and needs minutes for each set
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_AVX3)
#else
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector.cpp"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/tables.hpp"

#if HWY_ARCH_X86
#include <cpuid.h>
#endif

// A processor without vectors of doubles has the plain kernels.
#if HWY_TARGET != HWY_SCALAR
#include "kernels/deposit-inl.hpp"
#include "kernels/elements-inl.hpp"
#include "kernels/finish-inl.hpp"
#include "kernels/sums-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

template <class T>
const KernelTable* table() {
  constexpr bool is_f64 = std::is_same_v<T, double>;
  static const KernelTable filled = {plane_sums<T>,
                                     is_f64 ? plain_table(DataType::f64).moment_rows : moment_pair_rows,
                                     gradient_sums<T>,
                                     masked_gradient_sums<T>,
                                     deposit_pairs<bins_for(DataTypeOf<T>::value)>,
                                     is_f64 ? nullptr : deposit_values<T>,
                                     deposit_gradients<T>,
                                     plain_table(DataTypeOf<T>::value).expand_values,
                                     plain_table(DataTypeOf<T>::value).expand_gradients,
                                     pair_extremes,
                                     value_extremes<T>,
                                     gradient_extremes<T>,
                                     is_f64 ? nullptr : finish_moments,
                                     is_f64 ? nullptr : finish_sums,
                                     normalize<T>,
                                     input_gradient<T>,
                                     scale_by_channel<T>,
                                     mask_gradient<T>};
  return &filled;
}

const KernelTable* table_of(DataType type) {
  switch (type) {
    case DataType::f64:
      return table<double>();
    case DataType::bf16:
      return table<bfloat16>();
    case DataType::f16:
      return table<float16>();
    case DataType::f32:
      break;
  }
  return table<float>();
}

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace syncbn::kernels {
namespace {

// Asked of the compiler's own run-time support, so that the library needs Highway's headers alone.
#if HWY_ARCH_X86
bool has_f16c() {  // which clang 14 has no name for
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
// Asked once: where a hypervisor answers cpuid, that takes microseconds.
[[maybe_unused]] bool has_avx2() {
  static const bool has = [] {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && has_f16c();
  }();
  return has;
}
[[maybe_unused]] bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd");
}
#endif

}  // namespace

const KernelTable* vector_table([[maybe_unused]] DataType type, [[maybe_unused]] Isa isa) {
#if HWY_ARCH_X86 && HWY_TARGETS & HWY_AVX3
  if (isa == Isa::avx512 && has_avx512()) return N_AVX3::table_of(type);
#endif
#if HWY_ARCH_X86 && HWY_TARGETS & HWY_AVX2
  if (isa == Isa::avx2 && has_avx2()) return N_AVX2::table_of(type);
#endif
#if !HWY_ARCH_X86 && HWY_STATIC_TARGET != HWY_SCALAR
  if (isa == Isa::native) return HWY_STATIC_DISPATCH(table_of)(type);
#endif
  return nullptr;
}

}  // namespace syncbn::kernels
#endif
