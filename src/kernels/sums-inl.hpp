// SPDX-License-Identifier: MIT
// Sums inside one sample, with vectors. Included once per target.
#if defined(SYNCBN_KERNELS_SUMS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_SUMS_INL
#undef SYNCBN_KERNELS_SUMS_INL
#else
#define SYNCBN_KERNELS_SUMS_INL
#endif

#include <algorithm>

#include "kernels/one.hpp"
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
  HWY_INLINE void add(Index v, Vector a, Vector b) {
    first[v] = hn::Add(first[v], a);
    second[v] = hn::Add(second[v], b);
  }
  /// Lane l takes lane l + w for w = 8, 4, 2, 1.
  static HWY_INLINE double tree(Vector* sums) {
    for (Index half = kVectors / 2; half > 0; half /= 2) {
      for (Index v = 0; v < half; ++v) sums[v] = hn::Add(sums[v], sums[v + half]);
    }
    alignas(64) double lane[kWidth];
    hn::Store(sums[0], Doubles(), lane);
    for (Index w = kWidth / 2; w > 0; w /= 2) {
      for (Index l = 0; l < w; ++l) lane[l] += lane[l + w];
    }
    return lane[0];
  }
};

/// The vectors of a plane in order: terms.add(sums, v, offset, access) for vector v of each group of kLanes positions.
/// Lanes beyond the end add 0 to sums that began at +0, which leaves them as they are.
template <class Terms>
HWY_INLINE void sum_plane(Index positions, const Terms& terms, double& first, double& second) {
  LaneSums sums;
  Index s = 0;
  for (; s + kLanes <= positions; s += kLanes) {
    for (Index v = 0; v < LaneSums::kVectors; ++v) terms.add(sums, v, s + v * kWidth, Whole{});
  }
  for (Index v = 0; v < LaneSums::kVectors && s < positions; ++v, s += kWidth) {
    if (s + kWidth <= positions) {
      terms.add(sums, v, s, Whole{});
    } else {
      terms.add_first(sums, v, s, positions - s);
    }
  }
  first = LaneSums::tree(sums.first);
  second = LaneSums::tree(sums.second);
}

template <class T>
struct DifferenceTerms {
  const T* plane;
  Vector first;

  HWY_INLINE void add(LaneSums& sums, Index v, Index s, Whole access) const {
    const Vector d = hn::Sub(access.get(plane + s), first);
    sums.add(v, d, hn::Mul(d, d));
  }
  HWY_INLINE void add_first(LaneSums& sums, Index v, Index s, Index n) const {
    const auto valid = hn::FirstN(Doubles(), static_cast<size_t>(n));
    const Vector d = hn::IfThenElseZero(valid, hn::Sub(load_first(plane + s, n), first));
    sums.add(v, d, hn::Mul(d, d));
  }
};

/// x - mean: f32 is widened, so the mean's low part is beyond its reach.
HWY_INLINE Vector centred_vector(const float*, Vector x, Vector mean_hi, Vector) { return hn::Sub(x, mean_hi); }
HWY_INLINE Vector centred_vector(const double*, Vector x, Vector mean_hi, Vector mean_lo) {
  return hn::Sub(hn::Sub(x, mean_hi), mean_lo);
}

template <class T>
struct GradientTerms {
  const T* x;
  const T* dy;
  Vector mean_hi, mean_lo;

  HWY_INLINE void add(LaneSums& sums, Index v, Index s, Whole access) const {
    const Vector g = access.get(dy + s);
    sums.add(v, g, hn::Mul(g, centred_vector(x, access.get(x + s), mean_hi, mean_lo)));
  }
  HWY_INLINE void add_first(LaneSums& sums, Index v, Index s, Index n) const {
    const auto valid = hn::FirstN(Doubles(), static_cast<size_t>(n));
    const Vector g = load_first(dy + s, n);
    const Vector xmu = centred_vector(x, load_first(x + s, n), mean_hi, mean_lo);
    sums.add(v, g, hn::IfThenElseZero(valid, hn::Mul(g, xmu)));
  }
};

/// Calls body(c, access) for the C channels of a row, a vector at a time.
template <class Body>
HWY_INLINE void for_channel_vectors(Index channels, const Body& body) {
  Index c = 0;
  for (; c + kWidth <= channels; c += kWidth) body(c, Whole{});
  if (c < channels) body(c, First{channels - c});
}

/// Positions whose terms are added to the sums of one channel vector before the next vector's turn: the sums stay in
/// registers meanwhile, and the rows' cache lines in L1.
inline constexpr Index kRowGroup = 16;

template <class T>
struct RowDifferences {
  const T* x;
  Index channels, begin, end;
  PlaneSums sums;

  template <class Access>
  HWY_INLINE void operator()(Index c, Access access) const {
    const Vector first = access.get(x + c);
    Vector d_sum = begin == 0 ? hn::Zero(Doubles()) : access.get(sums.d + c);
    Vector dd_sum = begin == 0 ? hn::Zero(Doubles()) : access.get(sums.dd + c);
    for (Index s = begin; s < end; ++s) {
      const Vector d = hn::Sub(access.get(x + s * channels + c), first);
      d_sum = hn::Add(d_sum, d);
      dd_sum = hn::Add(dd_sum, hn::Mul(d, d));
    }
    access.put(first, sums.first + c);
    access.put(d_sum, sums.d + c);
    access.put(dd_sum, sums.dd + c);
  }
};

template <class T>
void plane_sums(const void* data, SampleShape shape, PlaneSums sums) {
  const T* x = static_cast<const T*>(data);
  if (shape.is_row_major()) {
    for (Index s = 0; s < shape.positions; s += kRowGroup) {
      const Index end = std::min(s + kRowGroup, shape.positions);
      for_channel_vectors(shape.channels, RowDifferences<T>{x, shape.channels, s, end, sums});
    }
    return;
  }
  for (Index c = 0; c < shape.channels; ++c) {
    const T* plane = x + c * shape.positions;
    const double first = static_cast<double>(read(plane));
    sums.first[c] = first;
    sum_plane(shape.positions, DifferenceTerms<T>{plane, broadcast(first)}, sums.d[c], sums.dd[c]);
  }
}

template <class T>
struct RowGradients {
  const T* x;
  const T* dy;
  Index channels, begin, end;
  Mean mean;
  double* sum_dy;
  double* sum_dy_xmu;

  template <class Access>
  HWY_INLINE void operator()(Index c, Access access) const {
    const Vector mean_hi = access.get(mean.hi + c);
    const Vector mean_lo = access.get(mean.lo + c);
    Vector dy_total = begin == 0 ? hn::Zero(Doubles()) : access.get(sum_dy + c);
    Vector dy_xmu_total = begin == 0 ? hn::Zero(Doubles()) : access.get(sum_dy_xmu + c);
    for (Index s = begin; s < end; ++s) {
      const Vector g = access.get(dy + s * channels + c);
      const Vector xmu = centred_vector(x, access.get(x + s * channels + c), mean_hi, mean_lo);
      dy_total = hn::Add(dy_total, g);
      dy_xmu_total = hn::Add(dy_xmu_total, hn::Mul(g, xmu));
    }
    access.put(dy_total, sum_dy + c);
    access.put(dy_xmu_total, sum_dy_xmu + c);
  }
};

template <class T>
void gradient_sums(const void* x_data, const void* dy_data, SampleShape shape, Mean mean, double* sum_dy,
                   double* sum_dy_xmu) {
  const T* x = static_cast<const T*>(x_data);
  const T* dy = static_cast<const T*>(dy_data);
  if (shape.is_row_major()) {
    for (Index s = 0; s < shape.positions; s += kRowGroup) {
      const Index end = std::min(s + kRowGroup, shape.positions);
      for_channel_vectors(shape.channels, RowGradients<T>{x, dy, shape.channels, s, end, mean, sum_dy, sum_dy_xmu});
    }
    return;
  }
  for (Index c = 0; c < shape.channels; ++c) {
    const Index offset = c * shape.positions;
    const GradientTerms<T> terms{x + offset, dy + offset, broadcast(mean.hi[c]), broadcast(mean.lo[c])};
    sum_plane(shape.positions, terms, sum_dy[c], sum_dy_xmu[c]);
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
