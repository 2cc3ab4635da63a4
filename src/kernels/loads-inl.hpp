// SPDX-License-Identifier: MIT
// Highway vocabulary for the kernels, part one: vectors of doubles from memory of any element type, and back. Included
// once per target.
#if defined(SYNCBN_KERNELS_LOADS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_LOADS_INL
#undef SYNCBN_KERNELS_LOADS_INL
#else
#define SYNCBN_KERNELS_LOADS_INL
#endif

#include <cstring>

#include "hwy/highway.h"
#include "kernels/kernels.hpp"
#include "kernels/one.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using Doubles = hn::ScalableTag<double>;
using Integers = hn::ScalableTag<std::int64_t>;
using Vector = hn::Vec<Doubles>;
using IntegerVector = hn::Vec<Integers>;

/// Doubles in a vector.
inline constexpr Index kWidth = static_cast<Index>(hn::MaxLanes(Doubles()));

using Floats = hn::Repartition<float, Doubles>;
using FloatVector = hn::Vec<Floats>;

/// Floats in a vector: two vectors of doubles.
inline constexpr Index kFloats = 2 * kWidth;

HWY_INLINE Vector load(const double* p) { return hn::LoadU(Doubles(), p); }
HWY_INLINE Vector load(const float* p) {
  const hn::Rebind<float, Doubles> d;
  return hn::PromoteTo(Doubles(), hn::LoadU(d, p));
}

HWY_INLINE void store(Vector v, double* p) { hn::StoreU(v, Doubles(), p); }
HWY_INLINE void store(Vector v, float* p) {
  const hn::Rebind<float, Doubles> d;
  hn::StoreU(hn::DemoteTo(d, v), d, p);
}

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2  // or better: with F16C
/// One vector's elements of 16 bits, as they lie in memory: by way of float in both directions, as kernels/one.hpp says.
using Halves = hn::Rebind<std::uint16_t, Doubles>;
using HalfVector = hn::Vec<Halves>;

inline const std::uint16_t* patterns(const void* p) { return static_cast<const std::uint16_t*>(p); }
inline std::uint16_t* patterns(void* p) { return static_cast<std::uint16_t*>(p); }

HWY_INLINE Vector widened(HalfVector v, const bfloat16*) {
  const hn::Rebind<std::uint32_t, Doubles> d32;
  const hn::Rebind<float, Doubles> df;
  return hn::PromoteTo(Doubles(), hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(d32, v))));
}
HWY_INLINE Vector widened(HalfVector v, const float16*) {
  const hn::Rebind<hwy::float16_t, Doubles> d16;
  const hn::Rebind<float, Doubles> df;
  return hn::PromoteTo(Doubles(), hn::PromoteTo(df, hn::BitCast(d16, v)));
}

/// The upper 16 bits of every 32.
HWY_INLINE HalfVector upper_halves(hn::Vec<hn::Rebind<std::uint32_t, Doubles>> v) {
  const hn::Repartition<std::uint8_t, hn::Rebind<std::uint32_t, Doubles>> d8;
  constexpr std::uint8_t kNone = 0x80;
  alignas(32) static constexpr std::uint8_t kTaken[32] = {
      2, 3, 6, 7, 10, 11, 14, 15, kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone,
      2, 3, 6, 7, 10, 11, 14, 15, kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone};
  const auto taken = hn::TableLookupBytesOr0(hn::BitCast(d8, v), hn::Load(d8, kTaken));
#if HWY_TARGET <= HWY_AVX3
  const hn::Repartition<std::uint64_t, decltype(d8)> d64;
  const auto words = hn::BitCast(d64, taken);
  return hn::BitCast(Halves(), hn::LowerHalf(hn::ConcatEven(d64, words, words)));
#else
  return HalfVector{taken.raw};
#endif
}

/// Floats as integers whose upper halves are the nearest bfloat16. With integers: the instruction for it (AVX512_BF16)
/// flushes subnormal numbers. A NaN becomes quiet, as in syncbn/half.hpp; rounding could carry it out of the pattern.
template <class V>
HWY_INLINE auto rounded_in_upper_halves(V value) {
  const hn::RebindToUnsigned<hn::DFromV<V>> d32;
  const auto bits = hn::BitCast(d32, value);
  const auto ends_odd = hn::TestBit(bits, hn::Set(d32, 0x10000));
  const auto rounded = hn::Add(bits, hn::IfThenElse(ends_odd, hn::Set(d32, 0x8000), hn::Set(d32, 0x7fff)));
  return hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(value)), hn::Or(bits, hn::Set(d32, 0x400000)), rounded);
}
HWY_INLINE HalfVector narrowed(Vector v, const bfloat16*) {
  return upper_halves(rounded_in_upper_halves(hn::DemoteTo(hn::Rebind<float, Doubles>(), v)));
}
/// The processor's conversion rounds to nearest and keeps subnormal numbers whatever its control register says.
HWY_INLINE HalfVector narrowed(Vector v, const float16*) {
  const hn::Rebind<float, Doubles> df;
  const hn::Rebind<hwy::float16_t, Doubles> d16;
  return hn::BitCast(Halves(), hn::DemoteTo(d16, hn::DemoteTo(df, v)));
}

/// As widened, with one shuffle in place of a conversion and a shift: every 128 bits of the floats take their patterns from
/// a copy of the same 16 bytes.
HWY_INLINE Vector load(const bfloat16* p) {
  const hn::Rebind<float, Doubles> df;
  const hn::Repartition<std::uint8_t, decltype(df)> d8;
  constexpr std::uint8_t kNone = 0x80;
  alignas(32) static constexpr std::uint8_t kUpperHalves[32] = {
      kNone, kNone, 0, 1, kNone, kNone, 2,  3,  kNone, kNone, 4,  5,  kNone, kNone, 6,  7,
      kNone, kNone, 8, 9, kNone, kNone, 10, 11, kNone, kNone, 12, 13, kNone, kNone, 14, 15};
#if HWY_TARGET <= HWY_AVX3
  const auto bytes = hn::LoadDup128(d8, reinterpret_cast<const std::uint8_t*>(p));
#else
  const hn::Vec<decltype(d8)> bytes{hn::LoadU(Halves(), patterns(p)).raw};
#endif
  return hn::PromoteTo(Doubles(), hn::BitCast(df, hn::TableLookupBytesOr0(bytes, hn::Load(d8, kUpperHalves))));
}
HWY_INLINE Vector load(const float16* p) { return widened(hn::LoadU(Halves(), patterns(p)), p); }
HWY_INLINE void store(Vector v, bfloat16* p) { hn::StoreU(narrowed(v, p), Halves(), patterns(p)); }
HWY_INLINE void store(Vector v, float16* p) { hn::StoreU(narrowed(v, p), Halves(), patterns(p)); }

/// The elements of a vector of floats, as they lie in memory.
using FloatHalves = hn::Rebind<std::uint16_t, Floats>;
using FloatHalfVector = hn::Vec<FloatHalves>;

HWY_INLINE FloatVector widened_to_floats(FloatHalfVector v, const bfloat16*) {
  const hn::RebindToUnsigned<Floats> d32;
  return hn::BitCast(Floats(), hn::ShiftLeft<16>(hn::PromoteTo(d32, v)));
}
HWY_INLINE FloatVector widened_to_floats(FloatHalfVector v, const float16*) {
  return hn::PromoteTo(Floats(), hn::BitCast(hn::Rebind<hwy::float16_t, Floats>(), v));
}

HWY_INLINE FloatHalfVector narrowed(FloatVector v, const bfloat16*) {
  const auto rounded = rounded_in_upper_halves(v);
#if HWY_TARGET <= HWY_AVX3
  alignas(64) static constexpr std::uint16_t kOdd[32] = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  const hn::Repartition<std::uint16_t, Floats> d16;
  return FloatHalfVector{
      _mm512_castsi512_si256(_mm512_permutexvar_epi16(hn::Load(d16, kOdd).raw, hn::BitCast(d16, rounded).raw))};
#else
  const hn::Repartition<std::uint16_t, Floats> d16;
  const auto halves = hn::BitCast(d16, rounded);
  return hn::LowerHalf(hn::ConcatOdd(d16, halves, halves));
#endif
}
HWY_INLINE FloatHalfVector narrowed(FloatVector v, const float16*) {
  return hn::BitCast(FloatHalves(), hn::DemoteTo(hn::Rebind<hwy::float16_t, Floats>(), v));
}

template <class Half>
HWY_INLINE FloatVector load_floats(const Half* p) {
  return widened_to_floats(hn::LoadU(FloatHalves(), patterns(p)), p);
}
template <class Half>
HWY_INLINE void store(FloatVector v, Half* p) {
  hn::StoreU(narrowed(v, p), FloatHalves(), patterns(p));
}

/// Past the cache, to a multiple of the vector's bytes. (Highway's Stream writes 16 bytes, however few the vector has.)
HWY_INLINE void stream_halves(HalfVector v, std::uint16_t* p) {
#if HWY_TARGET <= HWY_AVX3
  hn::Stream(v, Halves(), p);
#elif HWY_ARCH_X86_64
  _mm_stream_si64(reinterpret_cast<long long*>(p), _mm_cvtsi128_si64(v.raw));
#else
  hn::StoreU(v, Halves(), p);
#endif
}
#else
template <class Half>
HWY_INLINE Vector load_halves(const Half* p) {
  float values[kWidth];
  for (Index i = 0; i < kWidth; ++i) values[i] = read(p + i);
  return load(values);
}
template <class Half>
HWY_INLINE void store_halves(Vector v, Half* p) {
  float values[kWidth];
  store(v, values);
  for (Index i = 0; i < kWidth; ++i) write(p + i, values[i]);
}
HWY_INLINE Vector load(const bfloat16* p) { return load_halves(p); }
HWY_INLINE Vector load(const float16* p) { return load_halves(p); }
HWY_INLINE void store(Vector v, bfloat16* p) { store_halves(v, p); }
HWY_INLINE void store(Vector v, float16* p) { store_halves(v, p); }

template <class Half>
HWY_INLINE FloatVector load_floats(const Half* p) {
  float values[kFloats];
  for (Index i = 0; i < kFloats; ++i) values[i] = read(p + i);
  return hn::LoadU(Floats(), values);
}
template <class Half>
HWY_INLINE void store(FloatVector v, Half* p) {
  float values[kFloats];
  hn::StoreU(v, Floats(), values);
  for (Index i = 0; i < kFloats; ++i) write(p + i, values[i]);
}
#endif

#if HWY_ARCH_X86  // where masked accesses do not touch the memory of lanes that are off
/// The first n lanes; the others are 0 and their memory is not touched.
HWY_INLINE Vector load_first(const double* p, Index n) {
  return hn::MaskedLoad(hn::FirstN(Doubles(), static_cast<size_t>(n)), Doubles(), p);
}
HWY_INLINE Vector load_first(const float* p, Index n) {
  const hn::Rebind<float, Doubles> d;
  return hn::PromoteTo(Doubles(), hn::MaskedLoad(hn::FirstN(d, static_cast<size_t>(n)), d, p));
}
HWY_INLINE void store_first(Vector v, double* p, Index n) {
  hn::BlendedStore(v, hn::FirstN(Doubles(), static_cast<size_t>(n)), Doubles(), p);
}
HWY_INLINE void store_first(Vector v, float* p, Index n) {
  const hn::Rebind<float, Doubles> d;
  hn::BlendedStore(hn::DemoteTo(d, v), hn::FirstN(d, static_cast<size_t>(n)), d, p);
}

/// AVX2 has no masks for 16-bit elements.
template <class Half>
HWY_INLINE Vector load_first_halves(const Half* p, Index n) {
#if HWY_TARGET <= HWY_AVX3
  return widened(hn::MaskedLoad(hn::FirstN(Halves(), static_cast<size_t>(n)), Halves(), patterns(p)), p);
#else
  Half padded[kWidth] = {};
  std::memcpy(padded, p, static_cast<size_t>(n) * sizeof(Half));
  return load(padded);
#endif
}
template <class Half>
HWY_INLINE void store_first_halves(Vector v, Half* p, Index n) {
#if HWY_TARGET <= HWY_AVX3
  hn::BlendedStore(narrowed(v, p), hn::FirstN(Halves(), static_cast<size_t>(n)), Halves(), patterns(p));
#else
  Half padded[kWidth];
  store(v, padded);
  std::memcpy(p, padded, static_cast<size_t>(n) * sizeof(Half));
#endif
}
HWY_INLINE Vector load_first(const bfloat16* p, Index n) { return load_first_halves(p, n); }
HWY_INLINE Vector load_first(const float16* p, Index n) { return load_first_halves(p, n); }
HWY_INLINE void store_first(Vector v, bfloat16* p, Index n) { store_first_halves(v, p, n); }
HWY_INLINE void store_first(Vector v, float16* p, Index n) { store_first_halves(v, p, n); }
#else
template <class T>
HWY_INLINE Vector load_first(const T* p, Index n) {
  T padded[kWidth] = {};
  std::memcpy(padded, p, static_cast<size_t>(n) * sizeof(T));
  return load(padded);
}
template <class T>
HWY_INLINE void store_first(Vector v, T* p, Index n) {
  T padded[kWidth];
  store(v, padded);
  std::memcpy(p, padded, static_cast<size_t>(n) * sizeof(T));
}
#endif

/// The first n elements as floats; the others are 0 and their memory is not touched.
template <class Half>
HWY_INLINE FloatVector load_first_floats(const Half* p, Index n) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  const auto first = hn::FirstN(FloatHalves(), static_cast<size_t>(n));
  return widened_to_floats(hn::MaskedLoad(first, FloatHalves(), patterns(p)), p);
#else
  Half padded[kFloats] = {};
  std::memcpy(padded, p, static_cast<size_t>(n) * sizeof(Half));
  return load_floats(padded);
#endif
}
HWY_INLINE FloatVector load_first_floats(const float* p, Index n) {
#if HWY_ARCH_X86
  return hn::MaskedLoad(hn::FirstN(Floats(), static_cast<size_t>(n)), Floats(), p);
#else
  float padded[kFloats] = {};
  std::memcpy(padded, p, static_cast<size_t>(n) * sizeof(float));
  return hn::LoadU(Floats(), padded);
#endif
}
HWY_INLINE FloatVector load_floats(const float* p) { return hn::LoadU(Floats(), p); }
template <class Half>
HWY_INLINE void store_first(FloatVector v, Half* p, Index n) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  hn::BlendedStore(narrowed(v, p), hn::FirstN(FloatHalves(), static_cast<size_t>(n)), FloatHalves(), patterns(p));
#else
  Half padded[kFloats];
  store(v, padded);
  std::memcpy(p, padded, static_cast<size_t>(n) * sizeof(Half));
#endif
}

/// As vectors of D, Doubles or Floats.
template <class T>
HWY_INLINE Vector load_as(Doubles, const T* p) {
  return load(p);
}
template <class T>
HWY_INLINE FloatVector load_as(Floats, const T* p) {
  return load_floats(p);
}
template <class T>
HWY_INLINE Vector load_first_as(Doubles, const T* p, Index n) {
  return load_first(p, n);
}
template <class T>
HWY_INLINE FloatVector load_first_as(Floats, const T* p, Index n) {
  return load_first_floats(p, n);
}

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
