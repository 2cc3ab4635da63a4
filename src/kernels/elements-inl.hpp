// SPDX-License-Identifier: MIT
// Element passes, with vectors. Included once per target.
#if defined(SYNCBN_KERNELS_ELEMENTS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_ELEMENTS_INL
#undef SYNCBN_KERNELS_ELEMENTS_INL
#else
#define SYNCBN_KERNELS_ELEMENTS_INL
#endif

#include "kernels/parts-inl.hpp"
#include "kernels/sums-inl.hpp"
#include "kernels/walks-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

/// A pass is a struct with: Coefficients for one vector of channels, made by broadcast_from(c), get(c, access) or
/// either(mask, a, b), which takes a's lanes where the mask is set, else b's;
/// apply(offset, coefficients, access), which makes the outputs of one vector of elements; and prefetch(offset, bytes
/// ahead) of its kInputs inputs. D is what it calculates in: Doubles, or Floats for 16-bit types.
template <class T, class D, bool kHasResidual, bool kHasRelu>
struct NormalizePass {
  using Element = T;
  using Lanes = D;
  using V = hn::Vec<D>;
  const T* x;
  const T* residual;
  T* y;
  ForwardRows<hn::TFromD<D>> k;

  HWY_INLINE T* output() const { return y; }
  static constexpr Index kInputs = kHasResidual ? 2 : 1;
  template <Cache kTo>
  HWY_INLINE void prefetch(Index i, Index ahead) const {
    prefetch_line<kTo>(x + i, ahead);
    if (kHasResidual) prefetch_line<kTo>(residual + i, ahead);
  }
  struct Coefficients {
    V mean_hi, mean_lo, scale, shift;
  };
  HWY_INLINE Coefficients broadcast_from(Index c) const {
    const D d;
    return {hn::Set(d, k.mean_hi[c]), hn::Set(d, k.mean_lo[c]), hn::Set(d, k.scale[c]), hn::Set(d, k.shift[c])};
  }
  template <class Access>
  HWY_INLINE Coefficients get(Index c, Access access) const {
    return {access.get(k.mean_hi + c), access.get(k.mean_lo + c), access.get(k.scale + c), access.get(k.shift + c)};
  }
  static HWY_INLINE Coefficients either(hn::Mask<D> m, const Coefficients& a, const Coefficients& b) {
    return {hn::IfThenElse(m, a.mean_hi, b.mean_hi), hn::IfThenElse(m, a.mean_lo, b.mean_lo),
            hn::IfThenElse(m, a.scale, b.scale), hn::IfThenElse(m, a.shift, b.shift)};
  }
  template <class Access>
  HWY_INLINE void apply(Index i, const Coefficients& q, Access access) const {
    const V xmu = centred_vector(x, access.get(x + i), q.mean_hi, q.mean_lo);
    V v = hn::MulAdd(xmu, q.scale, q.shift);
    if (kHasResidual) v = hn::Add(v, access.get(residual + i));
    if (kHasRelu) v = hn::IfThenZeroElse(hn::Lt(v, hn::Zero(D())), v);
    access.put(v, y + i);
  }
};

template <class T, class D>
struct InputGradientPass {
  using Element = T;
  using Lanes = D;
  using V = hn::Vec<D>;
  const T* x;
  const T* dy;
  T* dx;
  BackwardRows<hn::TFromD<D>> k;

  HWY_INLINE T* output() const { return dx; }
  static constexpr Index kInputs = 2;
  template <Cache kTo>
  HWY_INLINE void prefetch(Index i, Index ahead) const {
    prefetch_line<kTo>(x + i, ahead);
    prefetch_line<kTo>(dy + i, ahead);
  }
  static constexpr bool kNeedsInvstd = std::is_same_v<T, double>;
  struct Coefficients {
    V mean_hi, mean_lo, scale, slope, offset, invstd;
  };
  HWY_INLINE Coefficients broadcast_from(Index c) const {
    const D d;
    return {hn::Set(d, k.mean_hi[c]), hn::Set(d, k.mean_lo[c]), hn::Set(d, k.scale[c]),
            hn::Set(d, k.slope[c]),   hn::Set(d, k.offset[c]),  kNeedsInvstd ? hn::Set(d, k.invstd[c]) : hn::Zero(d)};
  }
  template <class Access>
  HWY_INLINE Coefficients get(Index c, Access access) const {
    return {access.get(k.mean_hi + c), access.get(k.mean_lo + c),
            access.get(k.scale + c),   access.get(k.slope + c),
            access.get(k.offset + c),  kNeedsInvstd ? access.get(k.invstd + c) : hn::Zero(D())};
  }
  static HWY_INLINE Coefficients either(hn::Mask<D> m, const Coefficients& a, const Coefficients& b) {
    return {hn::IfThenElse(m, a.mean_hi, b.mean_hi), hn::IfThenElse(m, a.mean_lo, b.mean_lo),
            hn::IfThenElse(m, a.scale, b.scale),     hn::IfThenElse(m, a.slope, b.slope),
            hn::IfThenElse(m, a.offset, b.offset),   hn::IfThenElse(m, a.invstd, b.invstd)};
  }
  template <class Access>
  HWY_INLINE void apply(Index i, const Coefficients& q, Access access) const {
    const V xmu = centred_vector(x, access.get(x + i), q.mean_hi, q.mean_lo);
    const V g = access.get(dy + i);
    if constexpr (kNeedsInvstd) {
      const V projected = hn::NegMulAdd(hn::Mul(xmu, q.invstd), q.slope, hn::Sub(g, q.offset));
      access.put(hn::Mul(projected, q.scale), dx + i);
    } else {
      access.put(hn::MulAdd(g, q.scale, hn::MulAdd(xmu, q.slope, q.offset)), dx + i);
    }
  }
};

template <class T, class D>
struct ScalePass {
  using Element = T;
  using Lanes = D;
  const T* dy;
  T* dx;
  const hn::TFromD<D>* k;  ///< gamma * invstd

  HWY_INLINE T* output() const { return dx; }
  static constexpr Index kInputs = 1;
  template <Cache kTo>
  HWY_INLINE void prefetch(Index i, Index ahead) const {
    prefetch_line<kTo>(dy + i, ahead);
  }
  struct Coefficients {
    hn::Vec<D> scale;
  };
  HWY_INLINE Coefficients broadcast_from(Index c) const { return {hn::Set(D(), k[c])}; }
  template <class Access>
  HWY_INLINE Coefficients get(Index c, Access access) const {
    return {access.get(k + c)};
  }
  static HWY_INLINE Coefficients either(hn::Mask<D> m, const Coefficients& a, const Coefficients& b) {
    return {hn::IfThenElse(m, a.scale, b.scale)};
  }
  template <class Access>
  HWY_INLINE void apply(Index i, const Coefficients& q, Access access) const {
    access.put(hn::Mul(access.get(dy + i), q.scale), dx + i);
  }
};

template <class T>
struct MaskPass {
  using Element = T;
  using Lanes = std::conditional_t<kIsHalf<T>, Floats, Doubles>;
  const T* dy;
  const T* y;
  T* g;
  NoRows k = {};

  HWY_INLINE T* output() const { return g; }
  static constexpr Index kInputs = 2;
  template <Cache kTo>
  HWY_INLINE void prefetch(Index i, Index ahead) const {
    prefetch_line<kTo>(dy + i, ahead);
    prefetch_line<kTo>(y + i, ahead);
  }
  struct Coefficients {};
  HWY_INLINE Coefficients broadcast_from(Index) const { return {}; }
  template <class Access>
  HWY_INLINE Coefficients get(Index, Access) const {
    return {};
  }
  static HWY_INLINE Coefficients either(hn::Mask<Lanes>, const Coefficients&, const Coefficients&) { return {}; }
  template <class Access>
  HWY_INLINE void apply(Index i, const Coefficients&, Access access) const {
    access.put(masked_vector(access.get(dy + i), access.get(y + i)), g + i);
  }
};

/// Vectors for coefficients of this type.
template <class Number>
using LanesFor = std::conditional_t<std::is_same_v<Number, float>, Floats, Doubles>;

template <class T, class Number>
void normalize_part(const T* x, T* y, BlockShape shape, const ForwardRows<Number>& k, const T* residual, bool relu) {
  using D = LanesFor<Number>;
  if (residual == nullptr) {
    relu ? run_pass(shape, NormalizePass<T, D, false, true>{x, nullptr, y, k})
         : run_pass(shape, NormalizePass<T, D, false, false>{x, nullptr, y, k});
  } else {
    relu ? run_pass(shape, NormalizePass<T, D, true, true>{x, residual, y, k})
         : run_pass(shape, NormalizePass<T, D, true, false>{x, residual, y, k});
  }
}

template <class T>
void normalize(const void* x_data, void* y_data, BlockShape shape, ForwardCoefficients k, Epilogue epilogue) {
  const T* x = static_cast<const T*>(x_data);
  const T* residual = static_cast<const T*>(epilogue.residual);
  T* y = static_cast<T*>(y_data);
  for_each_part<T>(shape, k, [&](const ChannelPart& part, const auto& rows) {
    const T* added = residual == nullptr ? nullptr : residual + part.offset;
    normalize_part(x + part.offset, y + part.offset, part.shape, rows, added, epilogue.relu);
  });
}

template <class T, class Number>
void input_gradient_part(const T* x, const T* dy, T* dx, BlockShape shape, const BackwardRows<Number>& k) {
  run_pass(shape, InputGradientPass<T, LanesFor<Number>>{x, dy, dx, k});
}

template <class T>
void input_gradient(const void* x_data, const void* dy_data, void* dx_data, BlockShape shape, BackwardCoefficients k) {
  const T* x = static_cast<const T*>(x_data);
  const T* dy = static_cast<const T*>(dy_data);
  T* dx = static_cast<T*>(dx_data);
  for_each_part<T>(shape, k, [&](const ChannelPart& part, const auto& rows) {
    input_gradient_part(x + part.offset, dy + part.offset, dx + part.offset, part.shape, rows);
  });
}

template <class T, class Number>
void scale_part(const T* dy, T* dx, BlockShape shape, const Number* scale) {
  run_pass(shape, ScalePass<T, LanesFor<Number>>{dy, dx, scale});
}

template <class T>
void scale_by_channel(const void* dy_data, void* dx_data, BlockShape shape, const double* scale) {
  const T* dy = static_cast<const T*>(dy_data);
  T* dx = static_cast<T*>(dx_data);
  for_each_part<T>(shape, scale, [&](const ChannelPart& part, const auto* row) {
    scale_part(dy + part.offset, dx + part.offset, part.shape, row);
  });
}

template <class T>
void mask_gradient(const void* dy, const void* y, void* g, BlockShape shape) {
  run_pass(shape, MaskPass<T>{static_cast<const T*>(dy), static_cast<const T*>(y), static_cast<T*>(g)});
}

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
