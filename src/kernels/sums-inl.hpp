// SPDX-License-Identifier: MIT
// Sums inside one sample, with vectors. Included once per target.
#if defined(SYNCBN_KERNELS_SUMS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_SUMS_INL
#undef SYNCBN_KERNELS_SUMS_INL
#else
#define SYNCBN_KERNELS_SUMS_INL
#endif

#include <algorithm>
#include <type_traits>

#include "kernels/one.hpp"
#include "kernels/rows-inl.hpp"
#include "kernels/vectors-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

/// kLanes lanes of two sums: lane l is lane l % kWidth of vector l / kWidth.
struct LaneSums {
  static constexpr Index kVectors = kLanes / kWidth;
  Vector first[kVectors];
  Vector second[kVectors];

  HWY_INLINE LaneSums() {
    for (Index v = 0; v < kVectors; ++v) first[v] = second[v] = hn::Zero(Doubles());
  }
  /// first += a, second += a * b with one rounding.
  HWY_INLINE void add(Index v, Vector a, Vector b) {
    first[v] = hn::Add(first[v], a);
    second[v] = hn::MulAdd(a, b, second[v]);
  }
};

/// Lane l takes lane l + w for w = 8, 4, 2, 1: the steps that leave a vector of lanes.
HWY_INLINE Vector folded(Vector* sums) {
  for (Index half = LaneSums::kVectors / 2; half > 0; half /= 2) {
    for (Index v = 0; v < half; ++v) sums[v] = hn::Add(sums[v], sums[v + half]);
  }
  return sums[0];
}

/// Halves of two vectors added up: lane l of each took lane l + kWidth / 2.
HWY_INLINE Vector halves_added(Vector u, Vector v) {
  return hn::Add(hn::ConcatLowerLower(Doubles(), v, u), hn::ConcatUpperUpper(Doubles(), v, u));
}

/// The last steps, for kWidth sums at once, whose additions share vectors: lane i is the sum of v[i]'s lanes. (Each by itself,
/// in scalars: 8x8 planes in L2 take 1.08 of the time.)
HWY_INLINE Vector lane_sums_of(const Vector* v) {
  const Doubles d;
  Vector even = v[0], odd = v[1];
#if HWY_MAX_BYTES >= 64
  if constexpr (kWidth == 8) {
    const auto quarters_added = [d](Vector u, Vector w) HWY_ATTR {
      return hn::Add(hn::OddEvenBlocks(hn::SwapAdjacentBlocks(w), u), hn::OddEvenBlocks(w, hn::SwapAdjacentBlocks(u)));
    };
    even = quarters_added(halves_added(v[0], v[4]), halves_added(v[2], v[6]));
    odd = quarters_added(halves_added(v[1], v[5]), halves_added(v[3], v[7]));
  }
#endif
  if constexpr (kWidth == 4) {
    even = halves_added(v[0], v[2]);
    odd = halves_added(v[1], v[3]);
  }
  return hn::Add(hn::InterleaveLower(d, even, odd), hn::InterleaveUpper(d, even, odd));
}

/// The last positions of a plane, of vector kVector and those behind it. Constant indices keep the sums in registers.
template <Index kVector, class Terms>
HWY_INLINE void add_rest(LaneSums& sums, Index s, Index positions, const Terms& terms) {
  if constexpr (kVector < LaneSums::kVectors) {
    if (s + kWidth <= positions) {
      terms.add(sums, kVector, s, Whole{});
      add_rest<kVector + 1>(sums, s + kWidth, positions, terms);
    } else if (s < positions) {
      terms.add(sums, kVector, s, First{positions - s});
    }
  }
}

/// The vectors of a plane in order: terms.add(sums, v, offset, access) for vector v of each group of kLanes positions.
/// Lanes beyond the end add 0 to sums that began at +0, which leaves them as they are.
template <class Terms>
HWY_INLINE void sum_plane(Index positions, const Terms& terms, Vector& first, Vector& second) {
  LaneSums sums;
  Index s = 0;
  for (; s + kLanes <= positions; s += kLanes) {
    for (Index v = 0; v < LaneSums::kVectors; ++v) terms.add(sums, v, s + v * kWidth, Whole{});
  }
  add_rest<0>(sums, s, positions, terms);
  first = folded(sums.first);
  second = folded(sums.second);
}

/// first[c], second[c] <- the sums of channel c's plane, whose terms are terms_of(c).
template <class TermsOf>
HWY_INLINE void sum_planes(SampleShape shape, const TermsOf& terms_of, double* first, double* second) {
  Vector firsts[kWidth], seconds[kWidth];
  for (Index c = 0; c < shape.channels; c += kWidth) {
    const First access{std::min(kWidth, shape.channels - c)};
    for (Index i = 0; i < access.n; ++i) sum_plane(shape.positions, terms_of(c + i), firsts[i], seconds[i]);
    for (Index i = access.n; i < kWidth; ++i) firsts[i] = seconds[i] = hn::Zero(Doubles());
    access.put(lane_sums_of(firsts), first + c);
    access.put(lane_sums_of(seconds), second + c);
  }
}

/// x - mean: f32 is widened, so the mean's low part is beyond its reach.
template <class T>
HWY_INLINE Vector centred_vector(const T*, Vector x, Vector mean_hi, Vector mean_lo) {
  const Vector difference = hn::Sub(x, mean_hi);
  return std::is_same_v<T, double> ? hn::Sub(difference, mean_lo) : difference;
}

/// In float the mean has two.
template <class T>
HWY_INLINE FloatVector centred_vector(const T*, FloatVector x, FloatVector mean_hi, FloatVector mean_lo) {
  return hn::Sub(hn::Sub(x, mean_hi), mean_lo);
}

template <class T>
struct DifferenceTerms {
  const T* plane;
  Vector first;

  template <class Access>
  HWY_INLINE void add(LaneSums& sums, Index v, Index s, Access access) const {
    const Vector d = access.or_zero(hn::Sub(access.get(plane + s), first));
    sums.add(v, d, d);
  }
};

template <class T>
struct GradientTerms {
  const T* x;
  const T* dy;
  Vector mean_hi, mean_lo;

  template <class Access>
  HWY_INLINE void add(LaneSums& sums, Index v, Index s, Access access) const {
    const Vector xmu = centred_vector(x, access.get(x + s), mean_hi, mean_lo);
    sums.add(v, access.get(dy + s), access.or_zero(xmu));
  }
};

/// The gradient in front of a ReLU: g = dy where y > 0, written down and summed.
template <class T, class Store>
struct MaskedTerms {
  const T* x;
  const T* dy;
  const T* y;
  T* g;
  Vector mean_hi, mean_lo;

  template <class Access>
  HWY_INLINE void add(LaneSums& sums, Index v, Index s, Access access) const {
    const Vector masked = masked_vector(access.get(dy + s), access.get(y + s));
    Store().put(masked, g + s, access);
    const Vector xmu = centred_vector(x, access.get(x + s), mean_hi, mean_lo);
    sums.add(v, masked, access.or_zero(xmu));
  }
};
struct StoreInCache {
  template <class T, class Access>
  HWY_INLINE void put(Vector v, T* p, Access access) const {
    access.put(v, p);
  }
};
struct StorePastCache {
  template <class T>
  HWY_INLINE void put(Vector v, T* p, Whole) const {
    Streaming{}.put(v, p);
  }
  template <class T>
  HWY_INLINE void put(Vector v, T* p, First access) const {
    access.put(v, p);
  }
};

template <class T>
struct DifferenceRows {
  using Element = T;
  static constexpr Index kInputs = 1;
  const T* x;
  PlaneSums sums;

  struct State {
    Vector first, d, dd;
  };
  template <Cache kTo>
  HWY_INLINE void prefetch(Index i, Index ahead) const {
    prefetch_line<kTo>(x + i, ahead);
  }
  template <class Access>
  HWY_INLINE State start(Index c, bool is_first, Access access) const {
    const Vector first = access.get(x + c);
    if (!is_first) return {first, access.get(sums.d + c), access.get(sums.dd + c)};
    access.put(first, sums.first + c);
    return {first, hn::Zero(Doubles()), hn::Zero(Doubles())};
  }
  template <class Access>
  HWY_INLINE void add(State& state, Index i, Access access) const {
    const Vector d = hn::Sub(access.get(x + i), state.first);
    state.d = hn::Add(state.d, d);
    state.dd = hn::MulAdd(d, d, state.dd);
  }
  template <class Access>
  HWY_INLINE void finish(const State& state, Index c, Access access) const {
    access.put(state.d, sums.d + c);
    access.put(state.dd, sums.dd + c);
  }
};

template <class T>
void plane_sums(const void* data, SampleShape shape, PlaneSums sums) {
  const T* x = static_cast<const T*>(data);
  if (shape.is_row_major()) return sum_rows(shape, DifferenceRows<T>{x, sums});
  const auto terms_of = [&](Index c) HWY_ATTR {
    const T* plane = x + c * shape.positions;
    sums.first[c] = static_cast<double>(read(plane));
    return DifferenceTerms<T>{plane, broadcast(sums.first[c])};
  };
  sum_planes(shape, terms_of, sums.d, sums.dd);
}

/// Where the sums of gradients go, (C) each, and what they need.
struct GradientTotals {
  Mean mean;
  double* sum_dy;
  double* sum_dy_xmu;

  struct State {
    Vector mean_hi, mean_lo, dy, dy_xmu;
  };
  template <class Access>
  HWY_INLINE State start(Index c, bool is_first, Access access) const {
    const Vector zero = hn::Zero(Doubles());
    return {access.get(mean.hi + c), access.get(mean.lo + c), is_first ? zero : access.get(sum_dy + c),
            is_first ? zero : access.get(sum_dy_xmu + c)};
  }
  static HWY_INLINE void add(State& state, Vector g, Vector xmu) {
    state.dy = hn::Add(state.dy, g);
    state.dy_xmu = hn::MulAdd(g, xmu, state.dy_xmu);
  }
  template <class Access>
  HWY_INLINE void finish(const State& state, Index c, Access access) const {
    access.put(state.dy, sum_dy + c);
    access.put(state.dy_xmu, sum_dy_xmu + c);
  }
};

template <class T>
struct GradientRows : GradientTotals {
  using Element = T;
  static constexpr Index kInputs = 2;
  const T* x;
  const T* dy;

  HWY_INLINE GradientRows(const GradientTotals& totals, const T* x_data, const T* dy_data)
      : GradientTotals(totals), x(x_data), dy(dy_data) {}
  template <Cache kTo>
  HWY_INLINE void prefetch(Index i, Index ahead) const {
    prefetch_line<kTo>(x + i, ahead);
    prefetch_line<kTo>(dy + i, ahead);
  }
  template <class Access>
  HWY_INLINE void add(State& state, Index i, Access access) const {
    const Vector xmu = centred_vector(x, access.get(x + i), state.mean_hi, state.mean_lo);
    GradientTotals::add(state, access.get(dy + i), xmu);
  }
};

template <class T, class Store>
struct MaskedRows : GradientTotals {
  using Element = T;
  static constexpr Index kInputs = 3;
  const T* x;
  const T* dy;
  const T* y;
  T* g;

  HWY_INLINE MaskedRows(const GradientTotals& totals, const T* x_data, const T* dy_data, const T* y_data, T* g_data)
      : GradientTotals(totals), x(x_data), dy(dy_data), y(y_data), g(g_data) {}
  template <Cache kTo>
  HWY_INLINE void prefetch(Index i, Index ahead) const {
    prefetch_line<kTo>(x + i, ahead);
    prefetch_line<kTo>(dy + i, ahead);
    prefetch_line<kTo>(y + i, ahead);
  }
  template <class Access>
  HWY_INLINE void add(State& state, Index i, Access access) const {
    const Vector masked = masked_vector(access.get(dy + i), access.get(y + i));
    Store().put(masked, g + i, access);
    GradientTotals::add(state, masked, centred_vector(x, access.get(x + i), state.mean_hi, state.mean_lo));
  }
};

template <class T>
void gradient_sums(const void* x_data, const void* dy_data, SampleShape shape, Mean mean, double* sum_dy,
                   double* sum_dy_xmu) {
  const T* x = static_cast<const T*>(x_data);
  const T* dy = static_cast<const T*>(dy_data);
  if (shape.is_row_major()) return sum_rows(shape, GradientRows<T>({mean, sum_dy, sum_dy_xmu}, x, dy));
  const auto terms_of = [&](Index c) HWY_ATTR {
    const Index i = c * shape.positions;
    return GradientTerms<T>{x + i, dy + i, broadcast(mean.hi[c]), broadcast(mean.lo[c])};
  };
  sum_planes(shape, terms_of, sum_dy, sum_dy_xmu);
}

template <class T, class Store>
HWY_INLINE void masked_sums(const T* x, const T* dy, const T* y, T* g, SampleShape shape, const GradientTotals& to) {
  if (shape.is_row_major()) return sum_rows(shape, MaskedRows<T, Store>(to, x, dy, y, g));
  const auto terms_of = [&](Index c) HWY_ATTR {
    const Index i = c * shape.positions;
    return MaskedTerms<T, Store>{x + i, dy + i, y + i, g + i, broadcast(to.mean.hi[c]), broadcast(to.mean.lo[c])};
  };
  sum_planes(shape, terms_of, to.sum_dy, to.sum_dy_xmu);
}

template <class T>
void masked_gradient_sums(const void* x_data, const void* dy_data, const void* y_data, void* g_data, SampleShape shape,
                          bool streams, Mean mean, double* sum_dy, double* sum_dy_xmu) {
  const T* x = static_cast<const T*>(x_data);
  const T* dy = static_cast<const T*>(dy_data);
  const T* y = static_cast<const T*>(y_data);
  T* g = static_cast<T*>(g_data);
  const Index pitch = shape.is_row_major() ? shape.pitch_or_channels() : shape.positions;
  const GradientTotals to{mean, sum_dy, sum_dy_xmu};
  if (streams && Streaming::is_aligned(g) && pitch % kWidth == 0) {
    masked_sums<T, StorePastCache>(x, dy, y, g, shape, to);
    hwy::FlushStream();
  } else {
    masked_sums<T, StoreInCache>(x, dy, y, g, shape, to);
  }
}

/// kernels/one.hpp: moment_pair_one, a vector of channels at a time.
struct MomentPairRow {
  PlaneSums sums;
  Vector positions;
  double* a;
  double* b;
  Index stride;

  static HWY_INLINE Vector two_sum_of(Vector u, Vector v, Vector& error) {
    const Vector s = hn::Add(u, v);
    const Vector vv = hn::Sub(s, u);
    error = hn::Add(hn::Sub(u, hn::Sub(s, vv)), hn::Sub(v, vv));
    return s;
  }
  static HWY_INLINE Vector two_product_of(Vector u, Vector v, Vector& error) {
    const Vector p = hn::Mul(u, v);
    error = hn::MulSub(u, v, p);
    return p;
  }

  template <class Access>
  HWY_INLINE void operator()(Index c, Access access) const {
    const Vector first = access.get(sums.first + c);
    const Vector d = access.get(sums.d + c);
    Vector pe, se, ae, be, abe, qe;
    const Vector p = two_product_of(positions, first, pe);
    const Vector s = two_sum_of(p, d, se);
    const Vector sum_rest = hn::Add(se, pe);
    const Vector sum_hi = hn::Add(s, sum_rest);
    access.put(sum_hi, a + c);
    access.put(hn::Sub(sum_rest, hn::Sub(sum_hi, s)), a + stride + c);

    const Vector square = two_product_of(p, first, ae);
    const Vector cross = two_product_of(hn::Add(first, first), d, be);
    const Vector q = two_sum_of(two_sum_of(square, cross, abe), access.get(sums.dd + c), qe);
    const Vector rest = hn::Add(hn::Add(hn::Add(ae, hn::Mul(pe, first)), be), hn::Add(abe, qe));
    const Vector square_hi = hn::Add(q, rest);
    access.put(square_hi, b + c);
    access.put(hn::Sub(rest, hn::Sub(square_hi, q)), b + stride + c);
  }
};

inline void moment_pair_rows(PlaneSums sums, Index channels, Index positions, double* a, double* b, Index stride) {
  for_channel_vectors(channels, MomentPairRow{sums, broadcast(static_cast<double>(positions)), a, b, stride});
}

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
