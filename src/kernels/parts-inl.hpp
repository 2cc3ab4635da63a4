// SPDX-License-Identifier: MIT
// Coefficients for element passes: in double; and for 16-bit tensors in float, for the channels where that will do.
// Included once per target.
#if defined(SYNCBN_KERNELS_PARTS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_PARTS_INL
#undef SYNCBN_KERNELS_PARTS_INL
#else
#define SYNCBN_KERNELS_PARTS_INL
#endif

#include <algorithm>

#include "kernels/one.hpp"
#include "kernels/rows-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

/// Coefficients as passes take them, (C) each. Those in float are rounded but for the mean, which is hi + lo.
template <class Number>
struct ForwardRows {
  const Number *mean_hi, *mean_lo, *scale, *shift;
};
template <class Number>
struct BackwardRows {
  const Number *mean_hi, *mean_lo, *scale, *slope, *offset, *invstd;
};

/// For passes that take none.
struct NoRows {};

/// From channel c on.
inline ForwardRows<double> rows_of(const ForwardCoefficients& k, Index c) {
  return {k.mean.hi + c, k.mean.lo + c, k.scale + c, k.shift + c};
}
inline BackwardRows<double> rows_of(const BackwardCoefficients& k, Index c) {
  return {k.mean.hi + c, k.mean.lo + c, k.scale + c, k.slope + c, k.offset + c, k.invstd + c};
}
inline const double* rows_of(const double* scale, Index c) { return scale + c; }

/// Channels whose coefficients are rounded at once: 5 rows of floats take 10 KiB of L1.
inline constexpr Index kPartChannels = 512;

/// Some channels of a block.
struct ChannelPart {
  Index channel;  ///< The first.
  Index offset;   ///< The first one's first element.
  BlockShape shape;
};

/// Rows of rounded coefficients of a part.
class FloatRows {
 public:
  explicit FloatRows(const ChannelPart& part) : from_(part.channel), channels_(part.shape.sample.channels) {}
  ForwardRows<float> round(const ForwardCoefficients& k) {
    round_mean(k.mean.hi);
    return {rows_[0], rows_[1], rounded(k.scale, 2), rounded(k.shift, 3)};
  }
  BackwardRows<float> round(const BackwardCoefficients& k) {
    round_mean(k.mean.hi);
    return {rows_[0], rows_[1], rounded(k.scale, 2), rounded(k.slope, 3), rounded(k.offset, 4), nullptr};
  }
  const float* round(const double* scale) { return rounded(scale, 0); }

 private:
  const float* rounded(const double* values, int row) {
    float* to = rows_[row];
    for_channel_vectors(channels_,
                        [&](Index c, auto access) HWY_ATTR { access.put(access.get(values + from_ + c), to + c); });
    return to;
  }
  void round_mean(const double* mean) {
    const float* hi = rounded(mean, 0);
    float* lo = rows_[1];
    for_channel_vectors(channels_, [&](Index c, auto access) HWY_ATTR {
      access.put(hn::Sub(access.get(mean + from_ + c), access.get(hi + c)), lo + c);
    });
  }

  Index from_;
  Index channels_;
  alignas(64) float rows_[5][kPartChannels];
};

/// kernels/one.hpp: fits_float, a vector of channels at a time.
using ChannelMask = hn::Mask<Doubles>;
HWY_INLINE ChannelMask fit_float(Vector v) {
  const Vector size = hn::Abs(v);
  const ChannelMask is_in_range =
      hn::And(hn::Ge(size, broadcast(kLeastInFloat)), hn::Le(size, broadcast(kMostInFloat)));
  return hn::Or(is_in_range, hn::Eq(size, hn::Zero(Doubles())));
}
template <class Access>
HWY_INLINE ChannelMask fit_float(const ForwardCoefficients& k, Index c, Access access) {
  return hn::And(fit_float(access.get(k.mean.hi + c)),
                 hn::And(fit_float(access.get(k.scale + c)), fit_float(access.get(k.shift + c))));
}
template <class Access>
HWY_INLINE ChannelMask fit_float(const BackwardCoefficients& k, Index c, Access access) {
  const Vector slope = access.get(k.slope + c);
  const Vector most_slope = hn::Mul(broadcast(kMostSlopeInFloat), hn::Abs(access.get(k.invstd + c)));
  const ChannelMask outer = hn::And(fit_float(access.get(k.mean.hi + c)), fit_float(access.get(k.scale + c)));
  const ChannelMask inner = hn::And(fit_float(slope), fit_float(access.get(k.offset + c)));
  return hn::And(hn::And(outer, inner), hn::Le(hn::Abs(slope), most_slope));
}
template <class Access>
HWY_INLINE ChannelMask fit_float(const double* scale, Index c, Access access) {
  return fit_float(access.get(scale + c));
}

/// Do channels [from, from + channels) all fit? Lanes that are off are 0, which does.
template <class Coefficients>
HWY_INLINE bool all_fit_float(const Coefficients& k, Index from, Index channels) {
  bool fit = true;
  for_channel_vectors(channels, [&](Index c, auto access)
                                    HWY_ATTR { fit = fit && hn::AllTrue(Doubles(), fit_float(k, from + c, access)); });
  return fit;
}

/// Channels from c on, at most kPartChannels, that all fit or all do not.
template <class Coefficients>
Index channels_alike(const Coefficients& k, Index c, Index channels, bool& fit) {
  const Index most = std::min(kPartChannels, channels - c);
  fit = all_fit_float(k, c, most);
  if (fit) return most;
  fit = fits_float(k, c);
  Index count = 1;
  while (count < most && fits_float(k, c + count) == fit) ++count;
  return count;
}

/// Calls run(part, rows), with the part's coefficients in float or in double, until all channels of a tensor of T have
/// had their turn.
template <class T, class Coefficients, class Run>
void for_each_part(BlockShape shape, const Coefficients& k, const Run& run) {
  ChannelPart part{0, 0, shape};
  if constexpr (!kIsHalf<T>) {
    run(part, rows_of(k, 0));
  } else {
    part.shape.sample.pitch = shape.sample.pitch_or_channels();
    for (Index c = 0; c < shape.sample.channels; c += part.shape.sample.channels) {
      bool fit = false;
      part.shape.sample.channels = channels_alike(k, c, shape.sample.channels, fit);
      part.channel = c;
      part.offset = shape.sample.is_row_major() ? c : c * shape.sample.positions;
      if (fit) {
        FloatRows rows(part);
        run(part, rows.round(k));
      } else {
        run(part, rows_of(k, c));
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
