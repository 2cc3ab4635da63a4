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
    workers_[static_cast<std::size_t>(part)].sums.start(block, shape, type_, {0, channels_}, rank_);
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

void ReproducibleSums::finish_moments(const std::byte* body, Index count, double* mean, double* mean_lo, double* var) {
  workers_.front().finish.moments(body, count, type_, mean, mean_lo, var);
}

void ReproducibleSums::finish_gradients(const std::byte* body, double* sum_dy, double* sum_dy_xmu) {
  workers_.front().finish.gradients(body, type_, sum_dy, sum_dy_xmu);
}

/// An empty block for the channels of one range; the worker's own memory, which reserve_channels made.
std::byte* ReproducibleSums::start_range(Worker& worker, const TensorShape& shape, ChannelRange range) {
  auto* block = reinterpret_cast<std::byte*>(worker.block.data());
  statistics::start_block(block, 2 * (range.end - range.begin), bins_);
  worker.sums.start(block, shape, type_, range, rank_);
  return block;
}

void ReproducibleSums::reserve_channels(const TensorShape& shape, DataType type, Index width, bool masks) {
  for (Worker& worker : workers_) {
    worker.block.resize(statistics::block_bytes(2 * width, bins_) / sizeof(std::uint64_t));
    start_range(worker, shape, {0, width});
    if (masks) worker.sums.reserve_masked(shape, type);
  }
}

bool ReproducibleSums::takes_channel_ranges(const TensorShape& shape) const {
  const Index rows = std::max(kernels::moment_rows_for(type_), kernels::value_rows_for(type_));
  return shape.positions > 1 && shape.samples <= statistics::kMaxDeposits / rows;
}

void ReproducibleSums::moments_of(const ConstTensorView& x, ChannelRange range, Index worker, Index count, double* mean,
                                  double* mean_lo, double* var) {
  Worker& mine = workers_[static_cast<std::size_t>(worker)];
  const std::byte* block = start_range(mine, x.shape, range);
  mine.sums.add(x);
  mine.finish.moments(block, count, type_, mean + range.begin, mean_lo + range.begin, var + range.begin);
}

void ReproducibleSums::gradients_of(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean,
                                    ChannelRange range, Index worker, double* sum_dy, double* sum_dy_xmu) {
  Worker& mine = workers_[static_cast<std::size_t>(worker)];
  const std::byte* block = start_range(mine, x.shape, range);
  mine.sums.add_gradients(x, dy, mean);
  mine.finish.gradients(block, type_, sum_dy + range.begin, sum_dy_xmu + range.begin);
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
