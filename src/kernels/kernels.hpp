// SPDX-License-Identifier: MIT
// The passes over data. Pointers may be unaligned; nothing is allocated; no two calls of one element give different
// bits, wherever the element stands.
#pragma once

#include "syncbn/tensor_view.hpp"

namespace syncbn::kernels {

/// Lanes of the fixed pattern in which a plane (one sample, one channel, S contiguous positions) is summed: position s
/// goes to lane s % kLanes in order of s, then lane l takes lane l + w for w = 8, 4, 2, 1. 16 lanes keep two AVX-512 or
/// four AVX2 double accumulators busy (add latency 4, two ports).
inline constexpr Index kLanes = 16;

/// One sample: C channels and S positions; a plane is contiguous (channels-first) or has stride C (channels-last).
struct SampleShape {
  Index channels;
  Index positions;
  bool channels_last;
};

/// A block of samples, dense.
struct BlockShape {
  Index samples;
  SampleShape sample;
};

/// Per channel, (C) each: y = (x - mean) * scale + shift.
struct ForwardCoefficients {
  const double* mean;
  const double* scale;  ///< gamma * invstd
  const double* shift;  ///< beta
};

/// Per channel, (C) each: dx = ((dy - mean_dy) - (x - mean) * slope) * scale.
struct BackwardCoefficients {
  const double* mean;
  const double* mean_dy;  ///< sum(dy)/M
  const double* slope;    ///< invstd^2 * sum(dy*(x-mean))/M
  const double* scale;    ///< gamma * invstd
};

/// One table per element type and instruction set. f32 elements are widened to double, worked on there, and rounded
/// once: the passes wait for memory, not for arithmetic, and an output is within one rounding of its formula for any
/// mean/sigma. Products and sums are rounded separately (no fma), so that every instruction set can do the same.
struct KernelTable {
  /// mean[c] and m2[c] = sum((x-mean)^2) of one sample, S >= 1. Differences are taken from the plane's first value k,
  /// so that S*m2 >= sum((x-k)^2)*S/(1+S), and the cancellation in m2 is at most (1+S) * 2^-53 whatever the mean. Reads
  /// x once.
  void (*sample_moments)(const void* x, SampleShape shape, double* mean, double* m2);

  /// sum_dy[c] and sum_dy_xmu[c] = sum(dy*(x-mean[c])) of one sample, S >= 1. Reads x and dy once.
  void (*sample_gradient_sums)(const void* x, const void* dy, SampleShape shape, const double* mean, double* sum_dy,
                               double* sum_dy_xmu);

  /// y from x; y may be x. Reads x once, writes y once.
  void (*normalize)(const void* x, void* y, BlockShape shape, ForwardCoefficients coefficients);

  /// dx from x and dy; dx may be dy (or x). Reads x and dy once, writes dx once.
  void (*input_gradient)(const void* x, const void* dy, void* dx, BlockShape shape, BackwardCoefficients coefficients);

  /// dx = dy * scale[c]; dx may be dy.
  void (*scale)(const void* dy, void* dx, BlockShape shape, const double* scale);
};

/// The kernels for an element type.
const KernelTable& table_for(DataType type);

}  // namespace syncbn::kernels
