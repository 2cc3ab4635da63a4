// SPDX-License-Identifier: MIT
#include "layer/reproducible_sums.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "comm/message.hpp"
#include "layer/blocks.hpp"
#include "layer/parallel.hpp"
#include "statistics/exact_moments.hpp"

namespace syncbn::layer {
namespace {

void merge_message(const std::byte* in, std::byte* inout, std::size_t) {
  comm::merge_header(in, inout);
  statistics::merge_block(in + sizeof(comm::MessageHeader), inout + sizeof(comm::MessageHeader));
}

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
                   [&](Index from, Index width, auto& largest) { kernel.pair_extremes(pairs, from, width, largest); },
                   [&](Index from, Index width) {
                     return kernels::PairRows{pairs.a + from, pairs.b + from, rows, channels_, width};
                   });
}

void SampleSums::start(std::byte* block, Index channels, DataType type, int rank) {
  channels_ = channels;
  header_ = &statistics::header_of(block);
  windows_.attach(block, channels, type, rank);
  planes_.resize(3 * static_cast<std::size_t>(channels));
  const Index rows = std::max(kRowsPerBlock * kernels::value_rows_for(type),
                              samples_per_block(kernels::moment_rows_for(type)) * kernels::moment_rows_for(type));
  a_.resize(static_cast<std::size_t>(rows * channels));
  b_.resize(a_.size());
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
  return dy.masked.is_none() ? masked_.data() : sample_of(dy.masked, n);
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
    const std::byte* block = sample_of(x, n);
    if (kernel.deposit_values == nullptr) {
      kernel.expand_values(block, samples, channels_, 0, channels_, a_.data(), b_.data());
      deposit_pairs(x, rows);
      continue;
    }
    windows_.deposit(
        [&](auto a, auto b, Index from) { return kernel.deposit_values(block, samples, channels_, a, b, from); },
        [&](Index from, Index width, auto& largest) {
          kernel.value_extremes(block, samples, channels_, from, width, largest);
        },
        [&](Index from, Index width) {
          kernel.expand_values(block, samples, channels_, from, width, a_.data(), b_.data());
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
      kernel.plane_sums(sample_of(x, n + i), sample_shape_of(x.shape), sums);
      const Index offset = i * rows_per_sample * channels_;
      kernel.moment_rows(sums, channels_, x.shape.positions, a_.data() + offset, b_.data() + offset, channels_);
    }
    deposit_pairs(x, samples * rows_per_sample);
  }
}

void SampleSums::add_gradient_rows(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean) {
  const kernels::KernelTable& kernel = kernels::table_for(x.type);
  const kernels::PairRows pairs = pair_rows(kRowsPerBlock);
  for (Index n = 0; n < x.shape.samples; n += kRowsPerBlock) {
    const Index rows = std::min(kRowsPerBlock, x.shape.samples - n);
    const std::byte* x_block = sample_of(x, n);
    const std::byte* dy_block = sample_of(dy.dy, n);
    if (dy.is_masked()) {
      std::byte* masked = masked_of(dy, n);
      kernel.mask_gradient(dy_block, sample_of(dy.y, n), masked, {rows, {channels_, 1, true}});
      dy_block = masked;
    }
    windows_.deposit(
        [&](auto a, auto b, Index from) {
          return kernel.deposit_gradients(x_block, dy_block, rows, channels_, mean, a, b, from);
        },
        [&](Index from, Index width, auto& largest) {
          kernel.gradient_extremes(x_block, dy_block, rows, channels_, mean, from, width, largest);
        },
        [&](Index from, Index width) {
          kernel.expand_gradients(x_block, dy_block, rows, channels_, mean, from, width, a_.data(), b_.data());
          return kernels::PairRows{pairs.a, pairs.b, rows, width, width};
        });
  }
}

void SampleSums::add_gradient_planes(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean) {
  const kernels::KernelTable& kernel = kernels::table_for(x.type);
  const Index block = samples_per_block(1);
  const kernels::SampleShape shape = sample_shape_of(x.shape);
  const bool streams = dy.is_masked() && !dy.masked.is_none() && pass_shape_of(dy.dy, dy.masked).streams;
  for (Index n = 0; n < x.shape.samples; n += block) {
    const Index samples = std::min(block, x.shape.samples - n);
    for (Index i = 0; i < samples; ++i) {
      const std::byte* x_sample = sample_of(x, n + i);
      const std::byte* dy_sample = sample_of(dy.dy, n + i);
      double* sum_dy = a_.data() + i * channels_;
      double* sum_dy_xmu = b_.data() + i * channels_;
      if (dy.is_masked()) {
        kernel.masked_gradient_sums(x_sample, dy_sample, sample_of(dy.y, n + i), masked_of(dy, n + i), shape, streams,
                                    mean, sum_dy, sum_dy_xmu);
      } else {
        kernel.gradient_sums(x_sample, dy_sample, shape, mean, sum_dy, sum_dy_xmu);
      }
    }
    deposit_pairs(x, samples);
  }
}

ReproducibleSums::ReproducibleSums(Index channels, DataType type, int rank, int threads)
    : channels_(channels),
      bins_(kernels::bins_for(type)),
      type_(type),
      rank_(rank),
      workers_(static_cast<std::size_t>(threads)) {}

comm::Merge ReproducibleSums::merge_moments() const { return merge_message; }
comm::Merge ReproducibleSums::merge_gradients() const { return merge_message; }

/// Calls add(sums, first sample, end sample) for a part of the samples on each thread, and unites the parts in `body`.
template <class Add>
void ReproducibleSums::add_in_parts(const TensorShape& shape, std::byte* body, const Add& add) {
  statistics::start_block(body, 2 * channels_, bins_);
  if (shape.element_count() == 0) return;
  const Index useful = std::max<Index>(1, std::min(shape.samples, shape.element_count() / kElementsPerThread));
  const Index parts = std::min(useful, static_cast<Index>(workers_.size()));
  const auto block_of = [&](Index part) {
    std::vector<std::uint64_t>& block = workers_[static_cast<std::size_t>(part)].block;
    block.resize(part == 0 ? 0 : body_bytes() / sizeof(std::uint64_t));
    return part == 0 ? body : reinterpret_cast<std::byte*>(block.data());
  };
  for (Index part = 0; part < parts; ++part) {  // allocates, so not in the threads
    std::byte* block = block_of(part);
    if (part != 0) statistics::start_block(block, 2 * channels_, bins_);
    workers_[static_cast<std::size_t>(part)].sums.start(block, channels_, type_, rank_);
  }
  for_each_part(parts, [&](Index part) {
    add(workers_[static_cast<std::size_t>(part)].sums, part_of(shape.samples, part, parts));
  });
  for (Index part = 1; part < parts; ++part) statistics::merge_block(block_of(part), body);
}

void ReproducibleSums::add_samples(const ConstTensorView& x, std::byte* body) {
  add_in_parts(x.shape, body, [&](SampleSums& sums, Range range) { sums.add(samples_of(x, range.begin, range.end)); });
}

void ReproducibleSums::add_gradients(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean,
                                     std::byte* body) {
  if (dy.is_masked() && dy.masked.is_none()) {
    for (Worker& worker : workers_) worker.sums.reserve_masked(x.shape, x.type);
  }
  add_in_parts(x.shape, body, [&](SampleSums& sums, Range range) {
    OutputGradient part{samples_of(dy.dy, range.begin, range.end), {}, {}};
    if (dy.is_masked()) part.y = samples_of(dy.y, range.begin, range.end);
    if (!dy.masked.is_none()) part.masked = samples_of(dy.masked, range.begin, range.end);
    sums.add_gradients(samples_of(x, range.begin, range.end), part, mean);
  });
}

/// The units of all accumulators' lowest bins, for the kernels: 0 where they must not look.
const double* ReproducibleSums::units_of(const statistics::BinsView& sums) {
  units_.resize(static_cast<std::size_t>(sums.size));
  for (Index i = 0; i < sums.size; ++i) {
    const int exponent = statistics::kBinWidth * (sums.top[i] - (sums.bins - 1));
    const bool is_ordinary =
        sums.top[i] != statistics::kNoWindow && sums.nonfinite[i] == 0 && exponent > -900 && exponent < 800;
    units_[static_cast<std::size_t>(i)] = is_ordinary ? statistics::power_of_two(exponent) : 0.0;
  }
  return units_.data();
}

void ReproducibleSums::finish_moments(const std::byte* body, Index count, double* mean, double* mean_lo, double* var) {
  const statistics::BinsView sums = statistics::view_of(body);
  const kernels::KernelTable& kernel = kernels::table_for(type_);
  constexpr double kNotDone = -1.0;
  if (kernel.finish_moments != nullptr) {
    const double* units = units_of(sums);
    kernel.finish_moments({sums.bin, sums.size, units}, {sums.bin + channels_, sums.size, units + channels_}, channels_,
                          static_cast<double>(count), mean, mean_lo, var);
  } else {
    std::fill_n(var, channels_, kNotDone);
  }
  for (Index c = 0; c < channels_; ++c) {
    if (var[c] != kNotDone) continue;
    const statistics::MeanAndVariance moments = statistics::mean_and_variance(sums, c, channels_ + c, count);
    mean[c] = moments.mean.hi;
    mean_lo[c] = moments.mean.lo;
    var[c] = moments.var;
  }
}

void ReproducibleSums::finish_gradients(const std::byte* body, double* sum_dy, double* sum_dy_xmu) {
  const statistics::BinsView sums = statistics::view_of(body);
  const kernels::KernelTable& kernel = kernels::table_for(type_);
  const double* units = units_of(sums);
  for (const Index first : {Index{0}, channels_}) {
    double* sum = first == 0 ? sum_dy : sum_dy_xmu;
    if (kernel.finish_sums != nullptr) {
      kernel.finish_sums({sums.bin + first, sums.size, units + first}, channels_, sum);
    } else {
      std::fill_n(sum, channels_, std::numeric_limits<double>::quiet_NaN());
    }
    for (Index c = 0; c < channels_; ++c) {
      if (std::isnan(sum[c])) sum[c] = statistics::sum_of(sums, first + c).hi;
    }
  }
}

std::optional<NonFinite> ReproducibleSums::non_finite(const std::byte* body) const {
  const statistics::Offender& offender = statistics::header_of(body).offender;
  if (!offender.exists()) return std::nullopt;
  return NonFinite{static_cast<int>(offender.source), offender.accumulator % channels_};
}

bool ReproducibleSums::has_overflowed(const std::byte* body) const {
  return statistics::header_of(body).deposits > statistics::kMaxDeposits;
}

}  // namespace syncbn::layer
