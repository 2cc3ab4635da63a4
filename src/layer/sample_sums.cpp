// SPDX-License-Identifier: MIT
#include "layer/sample_sums.hpp"

#include <algorithm>

#include "layer/blocks.hpp"

namespace syncbn::layer {
namespace {

/// Rows of a 2-D tensor that go to the kernels at once: enough that flushing the bins costs little, few enough that
/// each row is a stream that the prefetcher follows.
constexpr Index kRowsPerBlock = 64;

}  // namespace

Index SampleSums::samples_per_block(Index rows_per_sample) const {
  constexpr Index kPairs = 8192;  // 128 KiB of pairs: stays in L2
  return std::clamp<Index>(kPairs / (channels_ * rows_per_sample), 1, 16);
}

kernels::PairRows SampleSums::pair_rows(Index rows) const { return {a_.data(), b_.data(), rows, channels_, channels_}; }

void SampleSums::deposit_pairs(const ConstTensorView& x, Index rows) {
  const kernels::PairRows pairs = pair_rows(rows);
  const kernels::KernelTable& kernel = kernels::table_for(x.type);
  windows_.deposit([&](auto a, auto b, Index from) { return kernel.deposit_pairs(pairs, a, b, from); },
                   [&](Index from, Index width, Index most, auto& largest) {
                     kernels::PairRows some = pairs;
                     some.rows = std::min(some.rows, most);
                     kernel.pair_extremes(some, from, width, largest);
                   },
                   [&](Index from, Index width) {
                     return kernels::PairRows{pairs.a + from, pairs.b + from, rows, channels_, width};
                   });
}

void SampleSums::start(std::byte* block, const TensorShape& shape, DataType type, ChannelRange range, int rank) {
  range_ = range;
  channels_ = range.end - range.begin;
  header_ = &statistics::header_of(block);
  windows_.attach(block, channels_, type, rank);
  Index rows = kRowsPerBlock * kernels::value_rows_for(type);
  if (shape.positions > 1) {
    planes_.resize(3 * static_cast<std::size_t>(channels_));
    rows = samples_per_block(kernels::moment_rows_for(type)) * kernels::moment_rows_for(type);
    rows = std::max(rows, samples_per_block(1));
  }
  if (static_cast<Index>(a_.size()) < rows * channels_) {
    a_.resize(static_cast<std::size_t>(rows * channels_));
    b_.resize(a_.size());
  }
}

void SampleSums::add(const ConstTensorView& x) {
  const bool rows = x.shape.positions == 1;
  header_->deposits += x.shape.samples * (rows ? kernels::value_rows_for(x.type) : kernels::moment_rows_for(x.type));
  rows ? add_rows(x) : add_planes(x);
}

void SampleSums::reserve_masked(const TensorShape& shape, DataType type) {
  const Index samples = shape.positions == 1 ? std::min(kRowsPerBlock, shape.samples) : 1;
  masked_.resize(static_cast<std::size_t>(samples * shape.channels * shape.positions * size_of(type)));
}

/// Where the masked gradient of sample n, and of those of its block, is written.
std::byte* SampleSums::masked_of(const OutputGradient& dy, Index n) {
  // The kernels address it as they do dy: from the first channel of the range on.
  return dy.masked.is_none() ? masked_.data() : part_of_sample(dy.masked, n);
}

void SampleSums::add_gradients(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean) {
  header_->deposits += x.shape.samples;
  x.shape.positions == 1 ? add_gradient_rows(x, dy, mean) : add_gradient_planes(x, dy, mean);
}

void SampleSums::add_rows(const ConstTensorView& x) {
  const kernels::KernelTable& kernel = kernels::table_for(x.type);
  const Index rows_per_sample = kernels::value_rows_for(x.type);
  for (Index n = 0; n < x.shape.samples; n += kRowsPerBlock) {
    const Index samples = std::min(kRowsPerBlock, x.shape.samples - n);
    const Index rows = samples * rows_per_sample;
    const kernels::PairRows pairs = pair_rows(rows);
    const std::byte* block = part_of_sample(x, n);
    const Index pitch = x.shape.channels;
    if (kernel.deposit_values == nullptr) {
      kernel.expand_values(block, samples, pitch, 0, channels_, a_.data(), b_.data());
      deposit_pairs(x, rows);
      continue;
    }
    windows_.deposit(
        [&](auto a, auto b, Index from) { return kernel.deposit_values(block, samples, pitch, channels_, a, b, from); },
        [&](Index from, Index width, Index most, auto& largest) {
          kernel.value_extremes(block, std::min(samples, most), pitch, from, width, largest);
        },
        [&](Index from, Index width) {
          kernel.expand_values(block, samples, pitch, from, width, a_.data(), b_.data());
          return kernels::PairRows{pairs.a, pairs.b, rows, width, width};
        });
  }
}

void SampleSums::add_planes(const ConstTensorView& x) {
  const kernels::KernelTable& kernel = kernels::table_for(x.type);
  const Index rows_per_sample = kernels::moment_rows_for(x.type);
  const Index block = samples_per_block(rows_per_sample);
  const kernels::PlaneSums sums{planes_.data(), planes_.data() + channels_, planes_.data() + 2 * channels_};
  for (Index n = 0; n < x.shape.samples; n += block) {
    const Index samples = std::min(block, x.shape.samples - n);
    for (Index i = 0; i < samples; ++i) {
      kernel.plane_sums(part_of_sample(x, n + i), sample_shape_of(x, range_), sums);
      const Index offset = i * rows_per_sample * channels_;
      kernel.moment_rows(sums, channels_, x.shape.positions, a_.data() + offset, b_.data() + offset, channels_);
    }
    deposit_pairs(x, samples * rows_per_sample);
  }
}

void SampleSums::add_gradient_rows(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean) {
  const kernels::KernelTable& kernel = kernels::table_for(x.type);
  const kernels::PairRows pairs = pair_rows(kRowsPerBlock);
  const kernels::Mean part_of_mean{mean.hi + range_.begin, mean.lo + range_.begin};
  const Index pitch = x.shape.channels;
  for (Index n = 0; n < x.shape.samples; n += kRowsPerBlock) {
    const Index rows = std::min(kRowsPerBlock, x.shape.samples - n);
    const std::byte* x_block = part_of_sample(x, n);
    const std::byte* dy_block = part_of_sample(dy.dy, n);
    if (dy.is_masked()) {
      std::byte* masked = masked_of(dy, n);
      kernel.mask_gradient(dy_block, part_of_sample(dy.y, n), masked, {rows, {channels_, 1, true, pitch}});
      dy_block = masked;
    }
    windows_.deposit(
        [&](auto a, auto b, Index from) {
          return kernel.deposit_gradients(x_block, dy_block, rows, pitch, channels_, part_of_mean, a, b, from);
        },
        [&](Index from, Index width, Index most, auto& largest) {
          kernel.gradient_extremes(x_block, dy_block, std::min(rows, most), pitch, part_of_mean, from, width, largest);
        },
        [&](Index from, Index width) {
          kernel.expand_gradients(x_block, dy_block, rows, pitch, part_of_mean, from, width, a_.data(), b_.data());
          return kernels::PairRows{pairs.a, pairs.b, rows, width, width};
        });
  }
}

void SampleSums::add_gradient_planes(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean) {
  const kernels::KernelTable& kernel = kernels::table_for(x.type);
  const Index block = samples_per_block(1);
  const kernels::SampleShape shape = sample_shape_of(x, range_);
  const kernels::Mean part_of_mean{mean.hi + range_.begin, mean.lo + range_.begin};
  const bool streams = dy.is_masked() && !dy.masked.is_none() && pass_shape_of(dy.dy, dy.masked).streams;
  for (Index n = 0; n < x.shape.samples; n += block) {
    const Index samples = std::min(block, x.shape.samples - n);
    for (Index i = 0; i < samples; ++i) {
      const std::byte* x_sample = part_of_sample(x, n + i);
      const std::byte* dy_sample = part_of_sample(dy.dy, n + i);
      double* sum_dy = a_.data() + i * channels_;
      double* sum_dy_xmu = b_.data() + i * channels_;
      if (dy.is_masked()) {
        kernel.masked_gradient_sums(x_sample, dy_sample, part_of_sample(dy.y, n + i), masked_of(dy, n + i), shape,
                                    streams, part_of_mean, sum_dy, sum_dy_xmu);
      } else {
        kernel.gradient_sums(x_sample, dy_sample, shape, part_of_mean, sum_dy, sum_dy_xmu);
      }
    }
    deposit_pairs(x, samples);
  }
}

}  // namespace syncbn::layer
