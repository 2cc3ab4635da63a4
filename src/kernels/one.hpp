// SPDX-License-Identifier: MIT
// What happens to one element or one channel: the definition that every path follows, and the code for tails.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/kernels.hpp"

namespace syncbn::kernels {

/// Element access at any address, a multiple of the element's size or not: one load or store all the same.
template <class T>
T read(const T* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}
template <class T>
void write(T* p, T value) {
  std::memcpy(p, &value, sizeof value);
}

/// 16-bit elements are floats as soon as they are read, exactly, and until they are written. What is calculated in double
/// is rounded to float, then to 16 bits; the second rounding is by far the larger one.
inline float read(const bfloat16* p) { return static_cast<float>(read<bfloat16>(p)); }
inline float read(const float16* p) { return static_cast<float>(read<float16>(p)); }
inline void write(bfloat16* p, float value) { write<bfloat16>(p, bfloat16(value)); }
inline void write(float16* p, float value) { write<float16>(p, float16(value)); }

/// x - mean. Data narrower than f64 are widened, so the mean's low part is beyond their reach.
template <class T>
double centred(T x, double mean, double mean_lo) {
  const double difference = static_cast<double>(x) - mean;
  return std::is_same_v<T, double> ? difference - mean_lo : difference;
}

/// What becomes of a NaN does not depend on the compiler: it stays.
template <class Number>
Number relu(Number v) {
  return v < Number{0} ? Number{0} : v;
}

/// v as widening and narrowing leave it: a signaling NaN becomes a quiet one. (The compiler drops casts there and back.)
template <class T>
T quieted(T v) {
  if constexpr (std::is_same_v<T, float>) {
    std::uint32_t bits;
    std::memcpy(&bits, &v, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) bits |= 0x00400000u;
    std::memcpy(&v, &bits, sizeof bits);
  }
  return v;
}

/// The gradient that passes a ReLU whose output was y.
template <class T>
T masked_by(T dy, T y) {
  return static_cast<double>(y) <= 0.0 ? T{} : quieted(dy);
}

/// dx from x - mean, as BackwardCoefficients says.
template <class T>
T input_gradient_one(double xmu, T dy, double scale, double slope, double offset, double invstd) {
  const double g = static_cast<double>(dy);
  if constexpr (std::is_same_v<T, double>) {
    return std::fma(-(xmu * invstd), slope, g - offset) * scale;
  } else {
    return static_cast<T>(std::fma(g, scale, std::fma(xmu, slope, offset)));
  }
}

/// bf16 and f16: element passes calculate in float where the channel's coefficients are zero or within this range, so
/// that they keep their precision, as do x - mean and, within the range of f32, the results; else in double. A channel
/// decides for itself: what its neighbours in a call are depends on how the tensor was split.
template <class T>
inline constexpr bool kIsHalf = sizeof(T) == 2;
inline constexpr double kLeastInFloat = 0x1p-100;
inline constexpr double kMostInFloat = 0x1p100;
/// Of slope / invstd. |x - mean| <= sqrt(M) / invstd over the M values of the mean, and M < 2^64, so (x - mean) * slope +
/// offset, which the result may cancel, does not overflow.
inline constexpr double kMostSlopeInFloat = 0x1p90;

inline bool fits_float(double v) {
  const double size = std::fabs(v);
  return size == 0.0 || (size >= kLeastInFloat && size <= kMostInFloat);
}
inline bool fits_float(const ForwardCoefficients& k, Index c) {
  return fits_float(k.mean.hi[c]) && fits_float(k.scale[c]) && fits_float(k.shift[c]);
}
inline bool fits_float(const BackwardCoefficients& k, Index c) {
  return fits_float(k.mean.hi[c]) && fits_float(k.scale[c]) && fits_float(k.slope[c]) && fits_float(k.offset[c]) &&
         std::fabs(k.slope[c]) <= kMostSlopeInFloat * std::fabs(k.invstd[c]);
}
inline bool fits_float(const double* scale, Index c) { return fits_float(scale[c]); }

/// x - mean in float, the mean in two: as good to 2^-23 of itself and 2^-48 of the mean.
inline float centred_float(float x, double mean) {
  const float hi = static_cast<float>(mean);
  return (x - hi) - static_cast<float>(mean - static_cast<double>(hi));
}

/// a + b = s + error, exactly.
inline double two_sum(double a, double b, double& error) {
  const double s = a + b;
  const double bb = s - a;
  error = (a - (s - bb)) + (b - bb);
  return s;
}

/// a * b = p + error, exactly: fma's one rounding falls on an exact number.
inline double two_product(double a, double b, double& error) {
  const double p = a * b;
  error = std::fma(a, b, -p);
  return p;
}

/// moment_rows of one channel of f32 data: pairs (sum_hi, square_hi), (sum_lo, square_lo).
inline void moment_pair_one(double first, double d, double dd, double positions, double a[2], double b[2]) {
  double pe, se, ae, be, abe, qe;
  const double p = two_product(positions, first, pe);
  const double s = two_sum(p, d, se);
  const double sum_rest = se + pe;
  a[0] = s + sum_rest;
  a[1] = sum_rest - (a[0] - s);

  const double square = two_product(p, first, ae);
  const double cross = two_product(first + first, d, be);
  const double q = two_sum(two_sum(square, cross, abe), dd, qe);
  const double rest = ((ae + pe * first) + be) + (abe + qe);
  b[0] = q + rest;
  b[1] = rest - (b[0] - q);
}

/// moment_rows of one channel of f64 data.
inline void moment_terms_one(double first, double d, double dd, double positions, double a[7], double b[7]) {
  a[0] = two_product(positions, first, a[1]);
  a[2] = d;
  a[3] = a[4] = a[5] = a[6] = 0.0;
  b[0] = two_product(a[0], first, b[1]);
  b[2] = two_product(a[1], first, b[3]);
  b[4] = two_product(first + first, d, b[5]);
  b[6] = dd;
}

inline std::int64_t bits_of(double value) {
  std::int64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

/// 2^-37: from one bin's unit to the next.
inline constexpr double kNextBin = 1.0 / 137438953472.0;

inline double double_of(std::int64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// Adds the slices of a value in K bins to slice[0..K). False if the value does not fit (a NaN never does).
template <int K>
bool add_slices(double value, double magic, std::int64_t* slice) {
  const std::int64_t plain_bits = bits_of(magic) - kTopHalf;
  double shifted = value + magic;
  if (((bits_of(shifted) ^ plain_bits) & ~(2 * kTopHalf - 1)) != 0) return false;
  slice[0] += bits_of(shifted) - bits_of(magic);
  value -= shifted - magic;
  magic = double_of(plain_bits);
  for (int k = 1; k < K; ++k) {
    magic *= kNextBin;
    shifted = value + magic;
    slice[k] += bits_of(shifted) - bits_of(magic);
    value -= shifted - magic;
  }
  return true;
}

}  // namespace syncbn::kernels
