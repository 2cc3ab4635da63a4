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

/// NaN for all of channel c if is_nan(c).
template <class IsNan>
void fill_nan_channels(const TensorView& result, const IsNan& is_nan) {
  for (Index c = 0; c < result.shape.channels; ++c) {
    if (is_nan(static_cast<std::size_t>(c))) fill_channel_with_nan(result, c);
  }
}

}  // namespace

void ElementPass::set_scale(const BatchNormCache& statistics, const State& state) {
  for (Index c = 0; c < options_.num_features; ++c) {
    const auto i = static_cast<std::size_t>(c);
    scale_[i] = options_.affine ? state.gamma[c] * statistics.invstd[i] : statistics.invstd[i];
  }
}

void ElementPass::set_forward(const BatchNormCache& statistics, const State& state) {
  set_scale(statistics, state);
  for (Index c = 0; c < options_.num_features; ++c) {
    shift_[static_cast<std::size_t>(c)] = options_.affine ? state.beta[c] : 0.0;
  }
}

void ElementPass::set_backward(const BatchNormCache& cache, const GradientSums& sums, DataType type,
                               const State& state) {
  set_scale(cache, state);
  const double count = static_cast<double>(cache.count);
  for (std::size_t c = 0; c < cache.invstd.size(); ++c) {
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

void ElementPass::fill_forward_nan(const BatchNormCache& statistics, const TensorView& y) const {
  fill_nan_channels(y, [&](std::size_t c) {
    return std::isnan(statistics.mean[c]) || std::isnan(scale_[c]) || std::isnan(shift_[c]);
  });
}

void ElementPass::fill_backward_nan(const GradientSums& sums, const TensorView& dx) const {
  fill_nan_channels(dx, [&](std::size_t c) {
    return std::isnan(scale_[c]) || !std::isfinite(sums.dy[c]) || !std::isfinite(sums.dy_xmu[c]);
  });
}

void ElementPass::normalize(const ConstTensorView& x, const TensorView& y, const ConstTensorView& residual,
                            const BatchNormCache& statistics, const State& state) {
  if (x.shape.element_count() == 0) return;
  set_forward(statistics, state);
  const kernels::KernelTable& kernel = kernels::table_for(x.type);
  for_each_piece(pass_shape_of(x, y), options_.threads, [&](const Piece& piece) {
    kernel.normalize(element_of(x, piece.offset), element_of(y, piece.offset), piece.shape,
                     forward_from(statistics, piece.channel),
                     {residual.is_none() ? nullptr : element_of(residual, piece.offset), has_relu()});
  });
  fill_forward_nan(statistics, y);
}

void ElementPass::input_gradient(const BatchNormCache& cache, const GradientSums& sums, const ConstTensorView& dy,
                                 const TensorView& dx, const State& state) {
  if (dx.shape.element_count() == 0) return;
  set_backward(cache, sums, dy.type, state);
  const kernels::KernelTable& kernel = kernels::table_for(dy.type);
  for_each_piece(pass_shape_of(dy, dx), options_.threads, [&](const Piece& piece) {
    kernel.input_gradient(element_of(cache.x, piece.offset), element_of(dy, piece.offset), element_of(dx, piece.offset),
                          piece.shape, backward_from(cache, piece.channel));
  });
  fill_backward_nan(sums, dx);
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
  set_scale(cache, state);
  const kernels::KernelTable& kernel = kernels::table_for(dy.type);
  for_each_piece(pass_shape_of(dy, dx), options_.threads, [&](const Piece& piece) {
    kernel.scale(element_of(dy, piece.offset), element_of(dx, piece.offset), piece.shape,
                 scale_.data() + piece.channel);
  });
  fill_nan_channels(dx, [&](std::size_t c) { return std::isnan(scale_[c]); });
}

}  // namespace syncbn::layer
