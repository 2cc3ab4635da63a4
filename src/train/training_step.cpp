// SPDX-License-Identifier: MIT
#include "training_step.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "loss.hpp"

namespace syncbn::train {

namespace {

Index size_of_scope(const Trainables<float>& trainables, GradientScope scope) {
  Index size = 0;
  for (const Parameter<float>* parameter : trainables.parameters)
    size += parameter->scope == scope ? parameter->size : 0;
  return size;
}

}  // namespace

TrainingStep::TrainingStep(Network<float>& network, const SgdOptions& options, const LabelledImages& images,
                           const ArmRanks& ranks, Index note_size)
    : network_(network),
      sgd_(options, network.trainables.parameters),
      images_(images),
      ranks_(ranks),
      first_unit_(units_of_rank(ranks.rank(), ranks.size()).first),
      sums_(ranks.trainers(), size_of_scope(network.trainables, GradientScope::unit),
            size_of_scope(network.trainables, GradientScope::rank), note_size) {
  std::array<Index, 3> sizes{};  // of what scopes contribute, so far
  for (const Parameter<float>* parameter : network.trainables.parameters) {
    Index& size = sizes[static_cast<std::size_t>(parameter->scope)];
    offsets_.push_back(size);
    size += parameter->size;
  }
}

void TrainingStep::set_batch(Index batch) {
  if (batch == batch_) return;
  batch_ = batch;
  shard_ = shard_of_rank(batch, ranks_.rank(), ranks_.size());
  pass_.units = shard_.units;
}

double TrainingStep::operator()(const Index* samples, Index batch, double rate) {
  set_batch(batch);
  load(samples + shard_.samples.first);

  const Tensor<float>& logits = network_.root->forward(x_, pass_);
  dlogits_.resize(logits.samples, logits.shape);
  Index unit_number = first_unit_;
  for (const SampleRange& unit : pass_.units) {
    sums_.set_loss(unit_number++, softmax_cross_entropy(logits, labels_.data(), unit, batch, dlogits_));
  }
  network_.root->backward(dlogits_, pass_, InputGradient::unwanted);
  gather_gradients();

  const double loss = sums_.loss_sum() / static_cast<double>(batch);
  if (std::isfinite(loss)) {
    sgd_.step(rate, [this](std::size_t parameter, Index position) { return gradient(parameter, position); });
  }
  return loss;
}

void TrainingStep::load(const Index* samples) {
  const Index count = shard_.samples.count;
  x_.resize(count, images_.shape);
  labels_.resize(static_cast<std::size_t>(count));
  for (Index n = 0; n < count; ++n) {
    copy_image(images_, samples[n], x_.sample(n));
    labels_[static_cast<std::size_t>(n)] = images_.labels[static_cast<std::size_t>(samples[n])];
  }
}

void TrainingStep::gather_gradients() {
  for (std::size_t p = 0; p < network_.trainables.parameters.size(); ++p) {
    const Parameter<float>& parameter = *network_.trainables.parameters[p];
    if (parameter.scope == GradientScope::global) continue;
    for (Index slot = 0; slot < parameter.slots; ++slot) {
      float* contribution = parameter.scope == GradientScope::unit ? sums_.unit(first_unit_ + slot) : sums_.rank();
      std::copy_n(parameter.gradient(slot), parameter.size, contribution + offsets_[p]);
    }
  }
  sums_.all_gather();
}

double TrainingStep::gradient(std::size_t p, Index position) const {
  const Parameter<float>& parameter = *network_.trainables.parameters[p];
  switch (parameter.scope) {
    case GradientScope::unit:
      return sums_.unit_sum(offsets_[p] + position);
    case GradientScope::rank:
      return sums_.rank_sum(offsets_[p] + position);
    case GradientScope::global:
      break;
  }
  return parameter.gradient(0)[position];
}

}  // namespace syncbn::train
