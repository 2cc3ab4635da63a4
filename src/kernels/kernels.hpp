// SPDX-License-Identifier: MIT
// The passes over data. Pointers may be unaligned; nothing is allocated; an element gives the same bits wherever it
// stands and whatever instruction set works on it.
//
// To that end all paths do the same IEEE operations: widening to double, addition, subtraction, multiplication, fma
// (std::fma where there are no vectors), one rounding back. The passes wait for memory or for the conversions, so
// arithmetic in double costs little, and an f32 output is within one rounding of its formula for any mean/sigma.
// bf16 and f16 are f32 to the kernels as soon as they are read and until they are written: what is said of f32 here holds
// for them, except that element passes calculate in float where the channel's coefficients allow it (kernels/one.hpp).
#pragma once

#include "syncbn/tensor_view.hpp"

namespace syncbn::kernels {

/// Lanes of the fixed pattern in which a plane (one sample, one channel, S contiguous positions) is summed: position s
/// goes to lane s % kLanes in order of s, then lane l takes lane l + w for w = 8, 4, 2, 1. 16 lanes keep two AVX-512 or
/// four AVX2 double accumulators busy (add latency 3 to 4, two ports).
inline constexpr Index kLanes = 16;

/// One sample: C channels and S positions; a plane is contiguous (channels-first) or has stride C (channels-last).
struct SampleShape {
  Index channels;
  Index positions;
  bool channels_last;
  Index pitch = 0;           ///< Channels of the whole tensor where these are a part of them; 0: they are all.
  bool from_memory = false;  ///< The tensor is larger than the caches. Decides on the order of reads, never on values.

  Index pitch_or_channels() const { return pitch == 0 ? channels : pitch; }

  /// Are the values of one channel apart from each other? Also true for 2-D tensors, where a sample is one row of C
  /// values; but not for one channel alone, whose plane is contiguous in either layout.
  bool is_row_major() const { return positions == 1 || (channels_last && pitch_or_channels() > 1); }
};

/// A block of samples, dense.
struct BlockShape {
  Index samples;
  SampleShape sample;
  bool streams = false;  ///< Outputs go past the cache: for those too large to be in it when they are read next.
};

/// Per channel, (C) each: the mean, with what it lost in rounding. f32 kernels use hi alone: x - hi is good to 2^-53
/// |mean|.
struct Mean {
  const double* hi;
  const double* lo;
};

/// The sums of one plane about its first value: first = x[0], d = sum(x - first), dd = sum((x - first)^2). (C) each. M2
/// = dd - d^2/S is safe: first belongs to the sample, so dd <= (1+S) * M2, and the cancellation is bounded by (1+S) *
/// 2^-53 whatever the mean.
struct PlaneSums {
  double* first;
  double* d;
  double* dd;
};

/// Per channel, (C) each: y = (x - mean) * scale + shift.
struct ForwardCoefficients {
  Mean mean;
  const double* scale;  ///< gamma * invstd
  const double* shift;  ///< beta
};

/// What follows: y + residual, then max(., 0). A NaN stays.
struct Epilogue {
  const void* residual = nullptr;  ///< As x; may be y.
  bool relu = false;
};

/// Per channel, (C) each, with scale = gamma * invstd.
///
/// f64: dx = ((dy - offset) - ((x - mean) * invstd) * slope) * scale, offset = sum(dy)/M, slope = sum(dy*xhat)/M: no
/// product on the way is larger, or smaller, than those of the formula itself.
///
/// Others: dx = dy * scale + ((x - mean) * slope + offset), offset = -scale * sum(dy)/M, slope = -scale * invstd *
/// sum(dy*xhat)/M. Two fma; double has exponents to spare for products of three f32 and invstd^2. invstd is not used but
/// for 16-bit types, to see whether float has, too.
struct BackwardCoefficients {
  Mean mean;
  const double* scale;
  const double* slope;
  const double* offset;
  const double* invstd;
};

/// log2 of one bin's unit over the next one's.
inline constexpr int kBinBits = 37;

/// In the top bin a value counts n units, n in [-kTopHalf, kTopHalf).
inline constexpr std::int64_t kTopHalf = std::int64_t{1} << 35;

/// C binned accumulators as the kernels see them (their meaning: statistics/bins.hpp). Bin k (0 = top) of channel c is
/// bin[k * stride + c].
///
/// magic[c] = (1.5 * 2^52 + kTopHalf) * u, u the unit of the top bin. v + magic[c] is v rounded to a multiple n*u, and
/// the low bits of its pattern hold n + kTopHalf: a value fits if nothing above the lowest 36 bits has changed. Where
/// no window is open u is 2^-1074, which zeros fit and nothing else that comes from f32 data; infinity lets nothing
/// through.
struct BinColumns {
  std::int64_t* bin;
  Index stride;
  const double* magic;  ///< (C)
};

/// R rows of C values each, for two accumulators per channel.
struct PairRows {
  const double* a;
  const double* b;
  Index rows;
  Index stride;  ///< doubles from row to row, of a and of b
  Index channels;
};

/// Channels that deposit kernels work on together: one cache line of f32.
inline constexpr Index kStrip = 16;

/// The largest magnitudes of the pairs of a strip, by channel; infinity where one is not finite.
struct StripExtremes {
  double a[kStrip];
  double b[kStrip];
};

/// C binned accumulators with 3 bins, to be read out.
struct BinSums {
  const std::int64_t* bin;
  Index stride;
  const double* unit;  ///< (C) of the lowest bin; 0 where it is not between 2^-900 and 2^800.
};

/// One table per element type and instruction set.
struct KernelTable {
  /// Reads one sample of x once. S >= 1.
  void (*plane_sums)(const void* x, SampleShape shape, PlaneSums sums);

  /// Plane sums as rows of pairs to deposit: the a's of a channel add up to S*first + d = sum(x), the b's to S*first^2
  /// + 2*first*d + dd = sum(x^2). f32: 2 rows, hi and lo, good to 2^-104. f64: 7 rows of exact terms, so that even
  /// there a constant channel has variance 0.
  void (*moment_rows)(PlaneSums sums, Index channels, Index positions, double* a, double* b, Index stride);

  /// sum_dy[c] and sum_dy_xmu[c] = sum(dy*(x-mean[c])) of one sample, S >= 1. Reads x and dy once.
  void (*gradient_sums)(const void* x, const void* dy, SampleShape shape, Mean mean, double* sum_dy,
                        double* sum_dy_xmu);

  /// g as mask_gradient, and its gradient_sums. Reads x, dy and y once, writes g once.
  void (*masked_gradient_sums)(const void* x, const void* dy, const void* y, void* g, SampleShape shape, bool streams,
                               Mean mean, double* sum_dy, double* sum_dy_xmu);

  /// Deposits rows of pairs (a[r][c], b[r][c]) from channel `from` on. Returns the channel count when all is done, else
  /// the first channel of a strip (kStrip channels or what is left) in which a value does not fit its window or is not
  /// finite: nothing of that strip and of those behind it has been deposited. At most 2^14 rows.
  Index (*deposit_pairs)(PairRows rows, BinColumns a, BinColumns b, Index from);

  /// The same for the pairs of expand_values, without writing them down. Rows are `pitch` elements apart. Null for f64.
  Index (*deposit_values)(const void* x, Index rows, Index pitch, Index channels, BinColumns a, BinColumns b,
                          Index from);

  /// The same for the pairs of expand_gradients.
  Index (*deposit_gradients)(const void* x, const void* dy, Index rows, Index pitch, Index channels, Mean mean,
                             BinColumns a, BinColumns b, Index from);

  /// Channels [from, from + width) of `rows` samples of a 2-D tensor as pairs (x, x^2), exact: one row of pairs a
  /// sample for f32; two for f64, (x, hi) and (0, lo) with x^2 = hi + lo.
  void (*expand_values)(const void* x, Index rows, Index pitch, Index from, Index width, double* a, double* b);

  /// The same as pairs (dy, dy * (x - mean)), one row a sample.
  void (*expand_gradients)(const void* x, const void* dy, Index rows, Index pitch, Mean mean, Index from, Index width,
                           double* a, double* b);

  /// The extremes of channels [from, from + width) of the pairs that the deposit kernels take; width <= kStrip.
  void (*pair_extremes)(PairRows rows, Index from, Index width, StripExtremes& extremes);
  void (*value_extremes)(const void* x, Index rows, Index pitch, Index from, Index width, StripExtremes& extremes);
  void (*gradient_extremes)(const void* x, const void* dy, Index rows, Index pitch, Mean mean, Index from, Index width,
                            StripExtremes& extremes);

  /// mean and biased var of `count` values from their sums and sums of squares, the same bits as
  /// statistics::mean_and_variance; var = -1 where that needs more than double-double. Null for f64 and for plain
  /// kernels.
  void (*finish_moments)(BinSums sums, BinSums squares, Index channels, double count, double* mean_hi, double* mean_lo,
                         double* var);

  /// The sums rounded to double, the same bits as statistics::sum_of; NaN where that needs more than double-double.
  /// Null as finish_moments.
  void (*finish_sums)(BinSums sums, Index channels, double* sum);

  /// y from x; y may be x. Reads x (and the residual) once, writes y once.
  void (*normalize)(const void* x, void* y, BlockShape shape, ForwardCoefficients coefficients, Epilogue epilogue);

  /// dx from x and dy; dx may be dy (or x). Reads x and dy once, writes dx once.
  void (*input_gradient)(const void* x, const void* dy, void* dx, BlockShape shape, BackwardCoefficients coefficients);

  /// dx = dy * scale[c]; dx may be dy.
  void (*scale)(const void* dy, void* dx, BlockShape shape, const double* scale);

  /// g = dy where y > 0 (or NaN), else 0: the gradient in front of a ReLU with outputs y. g may be dy.
  void (*mask_gradient)(const void* dy, const void* y, void* g, BlockShape shape);
};

/// Bins per accumulator, so that the squares of equal values and their sum over a plane are exact: 48 + 24 bits for
/// f32, 106 + 36 for f64.
constexpr int bins_for(DataType type) { return type == DataType::f64 ? 5 : 3; }

/// Rows of pairs that moment_rows makes of one sample.
constexpr Index moment_rows_for(DataType type) { return type == DataType::f64 ? 7 : 2; }

/// Rows of pairs that expand_values makes of one sample.
constexpr Index value_rows_for(DataType type) { return type == DataType::f64 ? 2 : 1; }

/// Instruction sets that have a table.
enum class Isa { scalar, avx2, avx512, native };

/// "scalar", "avx2", "avx512", "native" (another processor's vectors).
const char* name_of(Isa isa);

/// What the environment variable SYNCBN_ISA asks for, else the best that this processor has. `is_valid` is false, and
/// the best is taken, if the variable has another value than the names above or one that this processor lacks.
struct IsaChoice {
  Isa isa;
  bool is_valid;
};
IsaChoice chosen_isa();

/// The kernels for an element type, of the chosen instruction set.
const KernelTable& table_for(DataType type);

/// The kernels of one instruction set, which the processor must have; null if it has not.
const KernelTable* table_for(DataType type, Isa isa);

}  // namespace syncbn::kernels
