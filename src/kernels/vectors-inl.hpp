// SPDX-License-Identifier: MIT
// Highway vocabulary for the kernels, part two: how passes reach memory. Included once per target.
#if defined(SYNCBN_KERNELS_VECTORS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_VECTORS_INL
#undef SYNCBN_KERNELS_VECTORS_INL
#else
#define SYNCBN_KERNELS_VECTORS_INL
#endif

#include "hwy/cache_control.h"
#include "kernels/loads-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

HWY_INLINE Vector broadcast(double v) { return hn::Set(Doubles(), v); }

/// How far ahead lines are asked for, all inputs of a pass together. The addresses of a tile's rows jump, which the
/// processor's own prefetcher does not follow. Measured at 32x256x56x56, channels-last: sums 0.3 ns an element without,
/// 0.2 with.
inline constexpr Index kPrefetchBytes = 4096;
inline constexpr Index kLineBytes = 64;

/// Rows of more channels than this have only a few lines of each row in reach of kPrefetchBytes. All of the rows that take
/// turns are asked for while those before them are worked on, and would fill the first cache, so they go to the second.
/// Channels-last, out of the last level, ns an element, and before: 32x1024x14x14 forward 0.20 + 0.32 (0.28 + 0.40),
/// backward 0.37 + 0.50 (0.49 + 0.56); 32x2048x7x7 0.26 + 0.31 (0.33 + 0.36), 0.36 + 0.47 (0.55 + 0.61).
inline constexpr Index kLongRow = 512;

enum class Cache { first, second };

/// Asks for a line that may lie behind the end of a tensor.
template <Cache kTo, class T>
HWY_INLINE void prefetch_line(const T* p, Index bytes_ahead) {
  __builtin_prefetch(reinterpret_cast<const char*>(p) + bytes_ahead, 0, kTo == Cache::first ? 3 : 2);
}

/// Asks for the lines of the kCount * times elements that lie so many bytes ahead of element i of what a pass reads.
template <Cache kTo, Index kCount, class Pass>
HWY_INLINE void prefetch_ahead(const Pass& pass, Index i, Index times, Index bytes) {
  constexpr Index kPerLine = kLineBytes / static_cast<Index>(sizeof(typename Pass::Element));
  for (Index t = 0; t < times; ++t) {
    for (Index line = 0; line < kCount; line += kPerLine) {
      pass.template prefetch<kTo>(i + t * kCount + line, bytes);
    }
  }
}

/// Elements of a gradient that pass a ReLU whose outputs were y: kernels/one.hpp, masked_by.
template <class V>
HWY_INLINE V masked_vector(V dy, V y) {
  return hn::IfThenZeroElse(hn::Le(y, hn::Zero(hn::DFromV<V>())), dy);
}

/// Loads of a full vector and of its first n lanes under one name, for code that treats a tail with the operations of a
/// body. D is the arithmetic's type: Doubles, or Floats.
template <class D>
struct WholeOf {
  template <class T>
  HWY_INLINE hn::Vec<D> get(const T* p) const {
    return load_as(D(), p);
  }
  template <class T>
  HWY_INLINE void put(hn::Vec<D> v, T* p) const {
    store(v, p);
  }
  HWY_INLINE hn::Vec<D> or_zero(hn::Vec<D> v) const { return v; }
};
using Whole = WholeOf<Doubles>;

/// As Whole, with stores past the cache, to addresses that are multiples of the vector's bytes.
template <class D>
struct StreamingOf {
  static constexpr Index kCount = static_cast<Index>(hn::MaxLanes(D()));

  template <class T>
  HWY_INLINE hn::Vec<D> get(const T* p) const {
    return load_as(D(), p);
  }
  HWY_INLINE void put(Vector v, double* p) const { hn::Stream(v, Doubles(), p); }
  HWY_INLINE void put(Vector v, float* p) const {
    const hn::Rebind<float, Doubles> d;
    hn::Stream(hn::DemoteTo(d, v), d, p);
  }
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  HWY_INLINE void put(Vector v, bfloat16* p) const { stream_halves(narrowed(v, p), patterns(p)); }
  HWY_INLINE void put(Vector v, float16* p) const { stream_halves(narrowed(v, p), patterns(p)); }
  template <class Half>
  HWY_INLINE void put(FloatVector v, Half* p) const {
    hn::Stream(narrowed(v, p), FloatHalves(), patterns(p));
  }
#else
  template <class Half>
  HWY_INLINE void put(hn::Vec<D> v, Half* p) const {
    store(v, p);
  }
#endif
  template <class T>
  static HWY_INLINE bool is_aligned(const T* p) {
    return reinterpret_cast<std::uintptr_t>(p) % (sizeof(T) * kCount) == 0;
  }
  /// Do elements lie on multiples of their size, so that one of them is aligned?
  template <class T>
  static HWY_INLINE bool can_be_aligned(const T* p) {
    return reinterpret_cast<std::uintptr_t>(p) % sizeof(T) == 0;
  }
  /// Elements before the first aligned one.
  template <class T>
  static HWY_INLINE Index before_aligned(const T* p) {
    const Index misaligned = static_cast<Index>(reinterpret_cast<std::uintptr_t>(p) / sizeof(T)) % kCount;
    return misaligned == 0 ? 0 : kCount - misaligned;
  }
};
using Streaming = StreamingOf<Doubles>;

template <class D>
struct FirstOf {
  Index n;
  template <class T>
  HWY_INLINE hn::Vec<D> get(const T* p) const {
    return load_first_as(D(), p, n);
  }
  template <class T>
  HWY_INLINE void put(hn::Vec<D> v, T* p) const {
    store_first(v, p, n);
  }
  /// v with 0 in the lanes that are off.
  HWY_INLINE hn::Vec<D> or_zero(hn::Vec<D> v) const {
    return hn::IfThenElseZero(hn::FirstN(D(), static_cast<size_t>(n)), v);
  }
};
using First = FirstOf<Doubles>;

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
