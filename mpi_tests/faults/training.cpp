// SPDX-License-Identifier: MIT
#include "faults/training.hpp"

#include <utility>

namespace syncbn::testing {
namespace {

constexpr Index kSamples = 3;
constexpr Index kPositions = 4;

/// Some numbers that differ from rank to rank and from place to place.
std::vector<float> numbers(Index count, int rank, double scale) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::uint32_t state = 12345U + 977U * static_cast<std::uint32_t>(rank);
  for (float& value : values) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<float>(scale * (static_cast<double>(state >> 8U) / (1U << 24U) - 0.5));
  }
  return values;
}

void append(std::vector<double>& all, const ChannelVector& values) {
  for (Index c = 0; c < values.size(); ++c) all.push_back(values[c]);
}

}  // namespace

TrainedLayer::TrainedLayer(const BatchNormOptions& options, const Communicator& communicator)
    : layer(options, communicator) {
  const Index channels = options.num_features;
  const Index count = kSamples * channels * kPositions;
  x_data = numbers(count, communicator.rank(), 2.0);
  dy_data = numbers(count, communicator.rank() + 100, 0.5);
  y_data.assign(x_data.size(), 0.0F);
  dx_data.assign(x_data.size(), 0.0F);
  x = channels_first(std::as_const(x_data).data(), {kSamples, channels, kPositions});
  dy = channels_first(std::as_const(dy_data).data(), {kSamples, channels, kPositions});
  y = channels_first(y_data.data(), {kSamples, channels, kPositions});
  dx = channels_first(dx_data.data(), {kSamples, channels, kPositions});
}

std::vector<double> TrainedLayer::state() const {
  std::vector<double> all = {static_cast<double>(layer.num_batches_tracked()), static_cast<double>(cache.count)};
  append(all, layer.running_mean());
  append(all, layer.running_var());
  append(all, gradients.dgamma);
  append(all, gradients.dbeta);
  all.insert(all.end(), y_data.begin(), y_data.end());
  all.insert(all.end(), dx_data.begin(), dx_data.end());
  return all;
}

Training::Training(const std::vector<BatchNormOptions>& options, const Communicator& communicator, Stopwatch& watch)
    : watch_(watch) {
  for (const BatchNormOptions& one : options) {
    watch_.start();
    layers_.emplace_back(one, communicator);
  }
  note(0);
}

/// Outputs get new values first, so that one that is written is seen even if the last step wrote the same.
void Training::note(int layer) {
  last_ = layer;
  TrainedLayer& one = at(layer);
  for (std::vector<float>* output : {&one.y_data, &one.dx_data}) {
    for (std::size_t i = 0; i < output->size(); ++i) (*output)[i] = 1000.0F + static_cast<float>(i);
  }
  before_ = one.state();
  watch_.start();
}

void Training::note_many() {
  before_.clear();
  watch_.start();
}

void Training::forward(int layer) {
  note(layer);
  TrainedLayer& one = at(layer);
  one.layer.forward_train(one.x, one.y, one.cache);
}

void Training::begin_forward(int layer) {
  note(layer);
  TrainedLayer& one = at(layer);
  one.layer.begin_forward_train(one.x, one.y, one.cache);
}

void Training::finish_forward(int layer) {
  note(layer);
  at(layer).layer.finish_forward_train();
}

void Training::backward(int layer) {
  note(layer);
  TrainedLayer& one = at(layer);
  one.layer.backward(one.cache, one.dy, one.dx, one.gradients);
}

void Training::step() {
  for (int i = 0; i < size(); ++i) forward(i);
  for (int i = size(); i-- > 0;) backward(i);
}

bool Training::is_untouched() const {
  return before_.empty() || layers_[static_cast<std::size_t>(last_)].state() == before_;
}

std::vector<BatchNormOptions> three_layers() {
  std::vector<BatchNormOptions> all(3);
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i].num_features = 6;
    all[i].name = "bn" + std::to_string(i + 1);
  }
  return all;
}

}  // namespace syncbn::testing
