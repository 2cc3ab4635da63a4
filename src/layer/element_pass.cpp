// SPDX-License-Identifier: MIT
#include "layer/element_pass.hpp"

#include <cmath>

#include "kernels/kernels.hpp"
#include "layer/blocks.hpp"
#include "layer/nan_channels.hpp"
#include "layer/parallel.hpp"

namespace syncbn::layer {
namespace {

/// The mean from channel c on.
kernels::Mean mean_of(const BatchNormCache& statistics, Index c) {
  return {statistics.mean.data() + c, statistics.mean_lo.data() + c};
}

/// NaN for all of channel c of the range if is_nan(c).
template <class IsNan>
void fill_nan_channels(const TensorView& result, ChannelRange range, const IsNan& is_nan) {
  for (Index c = range.begin; c < range.end; ++c) {
    if (is_nan(static_cast<std::size_t>(c))) fill_channel_with_nan(result, c);
  }
}

ChannelRange all_of(const TensorShape& shape) { return {0, shape.channels}; }

/// The block of some channels of all samples.
kernels::BlockShape block_of(const ConstTensorView& in, const TensorView& out, ChannelRange range) {
  return {out.shape.samples, sample_shape_of(out.shape, range), pass_shape_of(in, out).streams};
}

}  // namespace

void ElementPass::set_scale(const BatchNormCache& statistics, const State& state, ChannelRange range) {
  for (Index c = range.begin; c < range.end; ++c) {
    const auto i = static_cast<std::size_t>(c);
    scale_[i] = options_.affine ? state.gamma[c] * statistics.invstd[i] : statistics.invstd[i];
  }
}

void ElementPass::set_forward(const BatchNormCache& statistics, const State& state, ChannelRange range) {
  set_scale(statistics, state, range);
  for (Index c = range.begin; c < range.end; ++c) {
    shift_[static_cast<std::size_t>(c)] = options_.affine ? state.beta[c] : 0.0;
  }
}

void ElementPass::set_backward(const BatchNormCache& cache, const GradientSums& sums, DataType type, const State& state,
                               ChannelRange range) {
  set_scale(cache, state, range);
  const double count = static_cast<double>(cache.count);
  for (auto c = static_cast<std::size_t>(range.begin); c < static_cast<std::size_t>(range.end); ++c) {
    slope_[c] = cache.invstd[c] * (sums.dy_xmu[c] / count);
    offset_[c] = sums.dy[c] / count;
    if (type == DataType::f64) continue;
    slope_[c] *= -(scale_[c] * cache.invstd[c]);
    offset_[c] *= -scale_[c];
    if (cache.count == 1) scale_[c] = slope_[c] = offset_[c] = 0.0;  // fma would leave what offset lost in rounding
  }
}

kernels::ForwardCoefficients ElementPass::forward_from(const BatchNormCache& statistics, Index c) const {
  return {mean_of(statistics, c), scale_.data() + c, shift_.data() + c};
}

kernels::BackwardCoefficients ElementPass::backward_from(const BatchNormCache& cache, Index c) const {
  return {mean_of(cache, c), scale_.data() + c, slope_.data() + c, offset_.data() + c, cache.invstd.data() + c};
}

void ElementPass::fill_forward_nan(const BatchNormCache& statistics, const TensorView& y, ChannelRange range) const {
  fill_nan_channels(y, range, [&](std::size_t c) {
    return std::isnan(statistics.mean[c]) || std::isnan(scale_[c]) || std::isnan(shift_[c]);
  });
}

void ElementPass::fill_backward_nan(const GradientSums& sums, const TensorView& dx, ChannelRange range) const {
  fill_nan_channels(dx, range, [&](std::size_t c) {
    return std::isnan(scale_[c]) || !std::isfinite(sums.dy[c]) || !std::isfinite(sums.dy_xmu[c]);
  });
}

void ElementPass::normalize(const ConstTensorView& x, const TensorView& y, const ConstTensorView& residual,
                            const BatchNormCache& statistics, const State& state) {
  if (x.shape.element_count() == 0) return;
  set_forward(statistics, state, all_of(x.shape));
  const kernels::KernelTable& kernel = kernels::table_for(x.type);
  for_each_piece(pass_shape_of(x, y), options_.threads, [&](const Piece& piece) {
    kernel.normalize(element_of(x, piece.offset), element_of(y, piece.offset), piece.shape,
                     forward_from(statistics, piece.channel),
                     {residual.is_none() ? nullptr : element_of(residual, piece.offset), has_relu()});
  });
  fill_forward_nan(statistics, y, all_of(x.shape));
}

void ElementPass::normalize_channels(const ConstTensorView& x, const TensorView& y, const ConstTensorView& residual,
                                     const BatchNormCache& statistics, const State& state, ChannelRange range) {
  set_forward(statistics, state, range);
  kernels::table_for(x.type).normalize(
      channels_of(x, 0, range.begin), channels_of(y, 0, range.begin), block_of(x, y, range),
      forward_from(statistics, range.begin),
      {residual.is_none() ? nullptr : channels_of(residual, 0, range.begin), has_relu()});
  fill_forward_nan(statistics, y, range);
}

void ElementPass::input_gradient(const BatchNormCache& cache, const GradientSums& sums, const ConstTensorView& dy,
                                 const TensorView& dx, const State& state) {
  if (dx.shape.element_count() == 0) return;
  set_backward(cache, sums, dy.type, state, all_of(dx.shape));
  const kernels::KernelTable& kernel = kernels::table_for(dy.type);
  for_each_piece(pass_shape_of(dy, dx), options_.threads, [&](const Piece& piece) {
    kernel.input_gradient(element_of(cache.x, piece.offset), element_of(dy, piece.offset), element_of(dx, piece.offset),
                          piece.shape, backward_from(cache, piece.channel));
  });
  fill_backward_nan(sums, dx, all_of(dx.shape));
}

void ElementPass::input_gradient_channels(const BatchNormCache& cache, const GradientSums& sums,
                                          const ConstTensorView& dy, const TensorView& dx, const State& state,
                                          ChannelRange range) {
  if (dx.shape.element_count() == 0) return;
  set_backward(cache, sums, dy.type, state, range);
  kernels::table_for(dy.type).input_gradient(channels_of(cache.x, 0, range.begin), channels_of(dy, 0, range.begin),
                                             channels_of(dx, 0, range.begin), block_of(dy, dx, range),
                                             backward_from(cache, range.begin));
  fill_backward_nan(sums, dx, range);
}

void ElementPass::mask_gradient(const ConstTensorView& dy, const ConstTensorView& y, const TensorView& masked) {
  if (masked.shape.element_count() == 0) return;
  const kernels::KernelTable& kernel = kernels::table_for(dy.type);
  for_each_piece(pass_shape_of(dy, masked), options_.threads, [&](const Piece& piece) {
    kernel.mask_gradient(element_of(dy, piece.offset), element_of(y, piece.offset), element_of(masked, piece.offset),
                         piece.shape);
  });
}

void ElementPass::frozen_input_gradient(const BatchNormCache& cache, const ConstTensorView& dy, const TensorView& dx,
                                        const State& state) {
  if (dx.shape.element_count() == 0) return;
  set_scale(cache, state, all_of(dx.shape));
  const kernels::KernelTable& kernel = kernels::table_for(dy.type);
  for_each_piece(pass_shape_of(dy, dx), options_.threads, [&](const Piece& piece) {
    kernel.scale(element_of(dy, piece.offset), element_of(dx, piece.offset), piece.shape,
                 scale_.data() + piece.channel);
  });
  fill_nan_channels(dx, all_of(dx.shape), [&](std::size_t c) { return std::isnan(scale_[c]); });
}

}  // namespace syncbn::layer
