// SPDX-License-Identifier: MIT
#include "layer/fast_sums.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>

#include "comm/message.hpp"
#include "layer/blocks.hpp"
#include "statistics/moments.hpp"

namespace syncbn::layer {
namespace {

double* numbers(std::byte* body) { return reinterpret_cast<double*>(body); }
const double* numbers(const std::byte* body) { return reinterpret_cast<const double*>(body); }

/// Behind the numbers.
struct Offender {
  static constexpr std::int64_t kNobody = INT64_MAX;
  std::int64_t rank = kNobody;
  std::int64_t channel = kNobody;
};

std::size_t bytes_of_numbers(Index channels) { return 2 * static_cast<std::size_t>(channels) * sizeof(double); }

Offender offender_of(Index channels, const std::byte* body) {
  Offender offender;
  std::memcpy(&offender, body + bytes_of_numbers(channels), sizeof offender);
  return offender;
}
void set_offender(Index channels, std::byte* body, const Offender& offender) {
  std::memcpy(body + bytes_of_numbers(channels), &offender, sizeof offender);
}
void merge_offender(Index channels, const std::byte* in, std::byte* inout) {
  const Offender a = offender_of(channels, in);
  const Offender b = offender_of(channels, inout);
  set_offender(channels, inout, std::tie(a.rank, a.channel) < std::tie(b.rank, b.channel) ? a : b);
}

/// The lowest channel with a number that is not finite, or -1.
Index first_non_finite(Index channels, const double* number) {
  for (Index c = 0; c < channels; ++c) {
    if (!std::isfinite(number[c]) || !std::isfinite(number[channels + c])) return c;
  }
  return -1;
}

Index channels_in(std::size_t message_bytes) {
  return static_cast<Index>((message_bytes - sizeof(comm::MessageHeader) - sizeof(Offender)) / (2 * sizeof(double)));
}

Index count_of(const std::byte* message) {
  comm::MessageHeader header;
  std::memcpy(&header, message, sizeof header);
  return header.count;
}

/// Only moments come with a count, so a message without one leaves the other's moments alone, and of two without a count
/// the bodies are gradients, or nothing.
void merge_message(const std::byte* in, std::byte* inout, std::size_t bytes) {
  const Index channels = channels_in(bytes);
  const double* in_body = numbers(in + sizeof(comm::MessageHeader));
  double* inout_body = numbers(inout + sizeof(comm::MessageHeader));
  if (count_of(in) == 0 && count_of(inout) == 0) {
    for (Index i = 0; i < 2 * channels; ++i) inout_body[i] += in_body[i];
  } else {
    statistics::merge_moments(channels, count_of(inout), {inout_body, inout_body + channels}, count_of(in),
                              {in_body, in_body + channels});
  }
  merge_offender(channels, in + sizeof(comm::MessageHeader), inout + sizeof(comm::MessageHeader));
  comm::merge_header(in, inout);
}

}  // namespace

std::size_t FastSums::body_bytes() const { return bytes_of_numbers(channels_) + sizeof(Offender); }

void FastSums::note_non_finite(std::byte* body) const {
  const Index channel = first_non_finite(channels_, numbers(body));
  if (channel >= 0) set_offender(channels_, body, {rank_, channel});
}

void FastSums::add_samples(const ConstTensorView& x, std::byte* body) {
  double* total = numbers(body);
  add_nothing(body);
  if (x.shape.element_count() == 0) return;
  if (x.shape.positions == 1) {  // the whole shard as one sample with N positions
    merge_planes(x, sample_of(x, 0), {channels_, x.shape.samples, /*channels_last=*/true}, 0, total);
  } else {
    for (Index n = 0; n < x.shape.samples; ++n) {
      merge_planes(x, sample_of(x, n), sample_shape_of(x), n * x.shape.positions, total);
    }
  }
  note_non_finite(body);
}

/// total <- total united with the moments of one sample's planes.
void FastSums::merge_planes(const ConstTensorView& x, const std::byte* data, kernels::SampleShape shape,
                            Index count_before, double* total) {
  const kernels::PlaneSums sums{sample_.data(), sample_.data() + channels_, sample_.data() + 2 * channels_};
  kernels::table_for(x.type).plane_sums(data, shape, sums);
  statistics::moments_from_differences(channels_, shape.positions, sums.first, sums.d, sums.dd);
  statistics::merge_moments(channels_, count_before, {total, total + channels_}, shape.positions,
                            {sums.first, sums.dd});
}

comm::Merge FastSums::merge() const { return merge_message; }

void FastSums::add_nothing(std::byte* body) {
  std::fill_n(numbers(body), 2 * channels_, 0.0);
  set_offender(channels_, body, {});
}

void FastSums::finish_moments(const std::byte* body, Index count, double* mean, double* mean_lo, double* var) {
  statistics::finish_moments(channels_, count, {numbers(body), numbers(body) + channels_}, mean, var);
  std::fill_n(mean_lo, channels_, 0.0);
}

void FastSums::add_gradients(const ConstTensorView& x, const OutputGradient& dy, kernels::Mean mean, std::byte* body) {
  double* total = numbers(body);
  add_nothing(body);
  if (x.shape.element_count() == 0) return;
  if (x.shape.positions == 1) {  // the whole shard as one sample with N positions
    const kernels::SampleShape shape{channels_, x.shape.samples, /*channels_last=*/true};
    sample_gradient_sums(x, dy, 0, shape, mean, total);
  } else {
    for (Index n = 0; n < x.shape.samples; ++n) {
      sample_gradient_sums(x, dy, n, sample_shape_of(x), mean, sample_.data());
      for (Index i = 0; i < 2 * channels_; ++i) total[i] += sample_[static_cast<std::size_t>(i)];
    }
  }
  note_non_finite(body);
}

/// sums, (2, C) <- those of sample n, taken to be of `shape`.
void FastSums::sample_gradient_sums(const ConstTensorView& x, const OutputGradient& dy, Index n,
                                    kernels::SampleShape shape, kernels::Mean mean, double* sums) {
  const kernels::KernelTable& kernel = kernels::table_for(x.type);
  if (!dy.is_masked()) {
    kernel.gradient_sums(sample_of(x, n), sample_of(dy.dy, n), shape, mean, sums, sums + channels_);
    return;
  }
  const bool is_wanted = !dy.masked.is_none();
  if (!is_wanted) masked_.resize(static_cast<std::size_t>(shape.channels * shape.positions * size_of(x.type)));
  kernel.masked_gradient_sums(sample_of(x, n), sample_of(dy.dy, n), sample_of(dy.y, n),
                              is_wanted ? sample_of(dy.masked, n) : masked_.data(), shape,
                              is_wanted && pass_shape_of(dy.dy, dy.masked).streams, mean, sums, sums + channels_);
}

void FastSums::finish_gradients(const std::byte* body, double* sum_dy, double* sum_dy_xmu) {
  std::copy_n(numbers(body), channels_, sum_dy);
  std::copy_n(numbers(body) + channels_, channels_, sum_dy_xmu);
}

std::optional<NonFinite> FastSums::non_finite(const std::byte* body) const {
  const Offender offender = offender_of(channels_, body);
  if (offender.rank != Offender::kNobody) return NonFinite{static_cast<int>(offender.rank), offender.channel};
  // Finite on every rank, the sum over ranks is not.
  const Index channel = first_non_finite(channels_, numbers(body));
  return channel < 0 ? std::nullopt : std::optional(NonFinite{-1, channel});
}

}  // namespace syncbn::layer
