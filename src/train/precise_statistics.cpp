// SPDX-License-Identifier: MIT
#include "precise_statistics.hpp"

#include <algorithm>
#include <numeric>

#include "collectives.hpp"
#include "loss.hpp"
#include "random.hpp"

namespace syncbn::train {

namespace {

/// Running statistics with momentum 1 are those of the last batch.
BatchNorm make_norm(const ArmRanks& ranks, Index num_features, const std::string& name, Activation activation) {
  BatchNormOptions options;
  options.num_features = num_features;
  options.name = name;
  options.activation = activation;
  options.momentum = 1;
  options.unbiased_running_var = false;
  return ranks.make_norm(options);
}

void copy_parameters(const Network<float>& from, Network<float>& to) {
  for (std::size_t p = 0; p < from.trainables.parameters.size(); ++p) {
    const Parameter<float>& source = *from.trainables.parameters[p];
    std::copy_n(source.values, source.size, to.trainables.parameters[p]->values);
  }
}

}  // namespace

PreciseStatistics::PreciseStatistics(const std::string& network, const LabelledImages& images, const ArmRanks& ranks)
    : images_(images), ranks_(ranks) {
  network_ = make_network<float>(network, images.shape, kClassCount,
                                 [&](Index num_features, const std::string& name, Activation activation) {
                                   return make_norm(ranks, num_features, name, activation);
                                 });
}

void PreciseStatistics::Moments::add(double batch_weight, const BatchNorm& layer) {
  const auto* batch_mean = layer.running_mean().data<float>();
  const auto* batch_var = layer.running_var().data<float>();
  const double total = weight + batch_weight;
  for (std::size_t c = 0; c < mean.size(); ++c) {
    const double delta = static_cast<double>(batch_mean[c]) - mean[c];
    mean[c] += delta * (batch_weight / total);
    m2[c] += batch_weight * static_cast<double>(batch_var[c]) + delta * delta * (weight * batch_weight / total);
  }
  weight = total;
}

void PreciseStatistics::Moments::merge_over(MPI_Comm comm) {
  const std::size_t channels = mean.size();
  std::vector<double> sums(channels + 1);
  for (std::size_t c = 0; c < channels; ++c) sums[c] = weight * mean[c];
  sums[channels] = weight;
  all_reduce_sum(comm, sums.data(), static_cast<Index>(sums.size()));
  const double total = sums[channels];
  for (std::size_t c = 0; c < channels; ++c) {
    const double global_mean = sums[c] / total;
    const double delta = mean[c] - global_mean;
    m2[c] += weight * delta * delta;
    mean[c] = global_mean;
  }
  weight = total;
  all_reduce_sum(comm, m2.data(), static_cast<Index>(channels));
}

Network<float>& PreciseStatistics::recalculate(const Network<float>& trained, const std::vector<Index>& order,
                                               Index batch) {
  copy_parameters(trained, network_);
  moments_.clear();
  for (const BatchNorm* norm : network_.trainables.norms) {
    const auto channels = static_cast<std::size_t>(norm->running_mean().size());
    moments_.push_back({0, std::vector<double>(channels), std::vector<double>(channels)});
  }
  const auto count = static_cast<Index>(order.size());
  for (Index first = 0; first < count; first += batch) {
    pass_over(order.data() + first, std::min(batch, count - first));
  }
  for (std::size_t i = 0; i < moments_.size(); ++i) {
    Moments& moments = moments_[i];
    if (!ranks_.share_statistics()) moments.merge_over(ranks_.trainers());
    BatchNorm& norm = *network_.trainables.norms[i];
    for (std::size_t c = 0; c < moments.mean.size(); ++c) {
      norm.running_mean().data<float>()[c] = static_cast<float>(moments.mean[c]);
      norm.running_var().data<float>()[c] = static_cast<float>(moments.m2[c] / moments.weight);
    }
  }
  return network_;
}

double PreciseStatistics::accuracy_in_train_mode(const Network<float>& trained, const LabelledImages& images,
                                                 Index batch) {
  constexpr std::uint64_t kTestStream = 0x54455354;  // the same batches in all epochs, arms and seeds
  copy_parameters(trained, network_);
  std::vector<Index> order(static_cast<std::size_t>(images.count));
  std::iota(order.begin(), order.end(), Index{0});
  shuffle(order, CounterRandom(0, kTestStream));
  std::vector<std::uint8_t> labels;
  std::int64_t correct = 0;
  for (Index first = 0; first < images.count; first += batch) {
    const Index* samples = order.data() + first;
    const Tensor<float>& logits = forward(images, samples, std::min(batch, images.count - first));
    labels.clear();
    for (Index n = 0; n < shard_.samples.count; ++n) {
      labels.push_back(images.labels[static_cast<std::size_t>(samples[shard_.samples.first + n])]);
    }
    correct += count_correct(logits, labels.data());
  }
  all_reduce_sum(ranks_.trainers(), &correct, 1);
  return static_cast<double>(correct) / static_cast<double>(images.count);
}

const Tensor<float>& PreciseStatistics::forward(const LabelledImages& images, const Index* samples, Index count) {
  ranks_.still_here();
  shard_ = shard_of_rank(count, ranks_.rank(), ranks_.size());
  x_.resize(shard_.samples.count, images.shape);
  for (Index n = 0; n < shard_.samples.count; ++n) {
    copy_image(images, samples[shard_.samples.first + n], x_.sample(n));
  }
  return network_.root->forward(x_, {Mode::train, shard_.units});
}

void PreciseStatistics::pass_over(const Index* samples, Index count) {
  forward(images_, samples, count);
  // Ranks that share statistics all have those of the whole batch; the others weigh theirs by their own samples, so that
  // the ranks of a group add up to its samples.
  const Index weight = ranks_.share_statistics() ? count : shard_.samples.count;
  if (weight == 0) return;
  for (std::size_t i = 0; i < moments_.size(); ++i) {
    moments_[i].add(static_cast<double>(weight), *network_.trainables.norms[i]);
  }
}

}  // namespace syncbn::train
