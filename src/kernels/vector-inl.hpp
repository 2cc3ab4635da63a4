// SPDX-License-Identifier: MIT
// The kernels of one element type with vectors: the same text compiled for each instruction set, by Highway. A file that
// includes this defines SYNCBN_VECTOR_TYPE; one for each type, so that they compile side by side.

// Two sets on x86-64; every other processor has the one that the compiler's flags name.
#ifndef HWY_DISABLED_TARGETS
#ifdef SYNCBN_WITHOUT_AVX512  // where a compiler checks every access, and needs minutes for each set
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_AVX3)
#else
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#endif
#endif
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/vector-inl.hpp"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"
#include "kernels/tables.hpp"

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

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();
#endif

#if HWY_ONCE
namespace syncbn::kernels {

template <>
const KernelTable* vector_table_of<SYNCBN_VECTOR_TYPE>([[maybe_unused]] Isa isa) {
#if HWY_ARCH_X86 && HWY_TARGETS & HWY_AVX3
  if (isa == Isa::avx512) return N_AVX3::table<SYNCBN_VECTOR_TYPE>();
#endif
#if HWY_ARCH_X86 && HWY_TARGETS & HWY_AVX2
  if (isa == Isa::avx2) return N_AVX2::table<SYNCBN_VECTOR_TYPE>();
#endif
#if !HWY_ARCH_X86 && HWY_STATIC_TARGET != HWY_SCALAR
  if (isa == Isa::native) return HWY_STATIC_DISPATCH(table<SYNCBN_VECTOR_TYPE>)();
#endif
  return nullptr;
}

}  // namespace syncbn::kernels
#endif
