// SPDX-License-Identifier: MIT
#include "layer/reproducible_sums.hpp"

#include <algorithm>

#include "comm/message.hpp"
#include "layer/blocks.hpp"
#include "layer/parallel.hpp"

namespace syncbn::layer {
namespace {

void merge_message(const std::byte* in, std::byte* inout, std::size_t) {
  comm::merge_header(in, inout);
  statistics::merge_block(in + sizeof(comm::MessageHeader), inout + sizeof(comm::MessageHeader));
}

}  // namespace

ReproducibleSums::ReproducibleSums(Index channels, DataType type, int rank, int threads)
    : channels_(channels),
      bins_(kernels::bins_for(type)),
      type_(type),
      rank_(rank),
      workers_(static_cast<std::size_t>(threads)) {}

comm::Merge ReproducibleSums::merge() const { return merge_message; }

void ReproducibleSums::add_nothing(std::byte* body) { statistics::start_block(body, 2 * channels_, bins_); }

/// Threads that are worth waking.
Index ReproducibleSums::parts_for(const TensorShape& shape) const {
  const Index useful = std::max<Index>(1, shape.element_count() / kElementsPerThread);
  return std::min(useful, static_cast<Index>(workers_.size()));
}

/// Do threads take channels? If there are fewer samples than threads; and in 2-D tensors with many channels, since
/// accumulators of their own, one set for each thread, would be many to merge.
bool ReproducibleSums::splits_channels(const TensorShape& shape, Index parts) {
  constexpr Index kManyChannels = 512;
  if (parts == 1) return false;
  const bool is_row_major = shape.layout == Layout::channels_last || shape.positions == 1;
  if (is_row_major && shape.channels < parts * kernels::kStrip) return false;
  return shape.samples < parts || (shape.positions == 1 && shape.channels >= kManyChannels);
}

/// Calls add(sums, range of samples) on each thread, and unites the parts in `body`.
template <class Add>
void ReproducibleSums::add_in_parts(const TensorShape& shape, std::byte* body, const Add& add) {
  statistics::start_block(body, 2 * channels_, bins_);
  if (shape.element_count() == 0) return;
  const Index parts = parts_for(shape);
  if (splits_channels(shape, parts)) return add_channels(shape, body, std::min(parts, channels_), add);
  add_samples_in_parts(shape, body, std::min(parts, shape.samples), add);
}

template <class Add>
void ReproducibleSums::add_samples_in_parts(const TensorShape& shape, std::byte* body, Index parts, const Add& add) {
  const auto block_of = [&](Index part) {
    return part == 0 ? body : workers_[static_cast<std::size_t>(part)].memory();
  };
  for (Index part = 0; part < parts; ++part) {  // allocates, so not in the threads
    if (part != 0) start_block(part, channels_);
    workers_[static_cast<std::size_t>(part)].sums.start(block_of(part), shape, type_, {0, channels_}, rank_);
  }
  for_each_part(parts, [&](Index part) {
    add(workers_[static_cast<std::size_t>(part)].sums, part_of(shape.samples, part, parts));
  });
  for (Index part = 1; part < parts; ++part) statistics::merge_block(block_of(part), body);
}

/// Each thread fills accumulators of its channels alone, in whole strips where rows hold all channels.
template <class Add>
void ReproducibleSums::add_channels(const TensorShape& shape, std::byte* body, Index parts, const Add& add) {
  const bool is_row_major = shape.layout == Layout::channels_last || shape.positions == 1;
  const Index unit = is_row_major ? kernels::kStrip : 1;
  const auto channels_of_part = [&](Index part) {
    const Range units = part_of((channels_ + unit - 1) / unit, part, parts);
    return ChannelRange{units.begin * unit, std::min(units.end * unit, channels_)};
  };
  for (Index part = 0; part < parts; ++part) {  // allocates
    const ChannelRange range = channels_of_part(part);
    start_block(part, range.end - range.begin);
    Worker& worker = workers_[static_cast<std::size_t>(part)];
    worker.sums.start(worker.memory(), shape, type_, range, rank_);
  }
  for_each_part(parts, [&](Index part) {
    Worker& worker = workers_[static_cast<std::size_t>(part)];
    add(worker.sums, Range{0, shape.samples});
    statistics::place_pairs(worker.memory(), body, channels_of_part(part).begin);
  });
  for (Index part = 0; part < parts; ++part) {
    statistics::merge_header_of_pairs(workers_[static_cast<std::size_t>(part)].memory(), body,
                                      channels_of_part(part).begin);
  }
}

/// An empty block for the pairs of some channels in a worker's own memory.
void ReproducibleSums::start_block(Index part, Index channels) {
  Worker& worker = workers_[static_cast<std::size_t>(part)];
  worker.block.resize(statistics::block_bytes(2 * channels, bins_) / sizeof(std::uint64_t));
  statistics::start_block(worker.memory(), 2 * channels, bins_);
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

void ReproducibleSums::finish_moments(const std::byte* body, Index count, double* mean, double* mean_lo, double* var) {
  finish_.moments(body, count, type_, mean, mean_lo, var);
}

void ReproducibleSums::finish_gradients(const std::byte* body, double* sum_dy, double* sum_dy_xmu) {
  finish_.gradients(body, type_, sum_dy, sum_dy_xmu);
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
