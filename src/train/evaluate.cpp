// SPDX-License-Identifier: MIT
#include "evaluate.hpp"

#include <algorithm>

#include "collectives.hpp"
#include "loss.hpp"

namespace syncbn::train {

namespace {

constexpr Index kBlock = 64;  // images

/// How many images of one block the network recognizes. `x` is room for it.
std::int64_t correct_in_block(Network<float>& network, const LabelledImages& images, Index block, const ArmRanks& ranks,
                              Tensor<float>& x) {
  ranks.still_here();
  const Index first = block * kBlock;
  const Index count = std::min(kBlock, images.count - first);
  x.resize(count, images.shape);
  for (Index n = 0; n < count; ++n) copy_image(images, first + n, x.sample(n));
  const Tensor<float>& logits = network.root->forward(x, {Mode::eval, {{0, count}}});
  return count_correct(logits, images.labels.data() + first);
}

constexpr std::int64_t kNoStatistics = -1;

/// Not those of a rank that never had a sample of a batch: they are as they began.
bool has_statistics(const Network<float>& network) {
  return network.trainables.norms.front()->num_batches_tracked() > 0;
}

/// Running means and variances of all layers, one after the other.
std::vector<double> statistics_of(const Network<float>& network) {
  std::vector<double> all;
  for (const BatchNorm* norm : network.trainables.norms) {
    for (const ChannelVector* values : {&norm->running_mean(), &norm->running_var()}) {
      all.insert(all.end(), values->data<float>(), values->data<float>() + values->size());
    }
  }
  return all;
}

void set_statistics(const std::vector<double>& all, Network<float>& network) {
  auto next = all.begin();
  for (BatchNorm* norm : network.trainables.norms) {
    for (ChannelVector* values : {&norm->running_mean(), &norm->running_var()}) {
      for (Index c = 0; c < values->size(); ++c) values->data<float>()[c] = static_cast<float>(*next++);
    }
  }
}

}  // namespace

void share_running_stats(Network<float>& network, const ArmRanks& ranks) {
  for (BatchNorm* norm : network.trainables.norms) {
    for (ChannelVector* values : {&norm->running_mean(), &norm->running_var()}) {
      broadcast_bytes(ranks.trainers(), values->data<float>(), values->size() * static_cast<Index>(sizeof(float)));
    }
  }
}

double test_accuracy(Network<float>& network, const LabelledImages& images, const ArmRanks& ranks) {
  Tensor<float> x;
  std::int64_t correct = 0;
  for (Index block = ranks.rank(); block * kBlock < images.count; block += ranks.size()) {
    correct += correct_in_block(network, images, block, ranks, x);
  }
  all_reduce_sum(ranks.trainers(), &correct, 1);
  return static_cast<double>(correct) / static_cast<double>(images.count);
}

OtherAccuracies Evaluator::operator()(Network<float>& network, const std::vector<Index>& order, Index batch) {
  OtherAccuracies accuracies;
  if (options_.compares_ranks && !ranks_.share_statistics()) compare_ranks(network, accuracies);
  if (options_.is_precise) {
    accuracies.precise = test_accuracy(second_network().recalculate(network, order, batch), data_.test, ranks_);
  }
  if (options_.in_train_mode) {
    accuracies.train_mode = second_network().accuracy_in_train_mode(network, data_.test, batch);
  }
  return accuracies;
}

PreciseStatistics& Evaluator::second_network() {
  if (!precise_) precise_.emplace(name_, data_.train, ranks_);
  return *precise_;
}

void Evaluator::compare_ranks(Network<float>& network, OtherAccuracies& accuracies) const {
  const bool has_own = has_statistics(network);
  Tensor<float> x;
  std::int64_t correct = has_own ? 0 : kNoStatistics;
  for (Index block = 0; has_own && block * kBlock < data_.test.count; ++block) {
    correct += correct_in_block(network, data_.test, block, ranks_, x);
  }
  std::vector<std::int64_t> by_rank(static_cast<std::size_t>(ranks_.size()));
  by_rank[static_cast<std::size_t>(ranks_.rank())] = correct;
  all_reduce_sum(ranks_.trainers(), by_rank.data(), ranks_.size());
  std::erase(by_rank, kNoStatistics);  // rank 0's stay
  const auto [worst, best] = std::minmax_element(by_rank.begin(), by_rank.end());
  accuracies.worst_rank = static_cast<double>(*worst) / static_cast<double>(data_.test.count);
  accuracies.best_rank = static_cast<double>(*best) / static_cast<double>(data_.test.count);

  const std::vector<double> own = statistics_of(network);
  std::vector<double> mean = has_own ? own : std::vector<double>(own.size());
  all_reduce_sum(ranks_.trainers(), mean.data(), static_cast<Index>(mean.size()));
  for (double& value : mean) value /= static_cast<double>(by_rank.size());
  set_statistics(mean, network);
  accuracies.mean_statistics = test_accuracy(network, data_.test, ranks_);
  set_statistics(own, network);
}

}  // namespace syncbn::train
