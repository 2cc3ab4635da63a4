// SPDX-License-Identifier: MIT
#include "training_step.hpp"

#include <cmath>

#include "loss.hpp"

namespace syncbn::train {

namespace {

Index parameter_count(const Trainables<float>& trainables) {
  Index count = 0;
  for (const Parameter<float>* parameter : trainables.parameters) count += parameter->size;
  return count;
}

}  // namespace

TrainingStep::TrainingStep(Network<float>& network, const SgdOptions& options, const LabelledImages& images,
                           const ArmRanks& ranks)
    : network_(network),
      sgd_(options, network.trainables.parameters),
      images_(images),
      ranks_(ranks),
      sums_(ranks.trainers(), parameter_count(network.trainables) + kUnitCount) {
  Index offset = 0;
  for (const Parameter<float>* parameter : network.trainables.parameters) {
    offsets_.push_back(offset);
    offset += parameter->size;
  }
  offsets_.push_back(offset);
}

double TrainingStep::operator()(const Index* samples, Index batch, double rate) {
  const Shard shard = shard_of_rank(batch, ranks_.rank(), ranks_.size());
  const Pass pass{Mode::train, shard.units};
  load(samples + shard.samples.first, shard);

  sums_.clear();
  const Tensor<float>& logits = network_.root->forward(x_, pass);
  dlogits_.resize(logits.samples, logits.shape);
  Index loss_at = offsets_.back() + units_of_rank(ranks_.rank(), ranks_.size()).first;
  for (const SampleRange& unit : pass.units) {
    const double unit_loss = softmax_cross_entropy(logits, labels_.data(), unit, batch, dlogits_);
    sums_.add(loss_at++, &unit_loss, 1);
  }
  network_.root->backward(dlogits_, pass, InputGradient::unwanted);
  sum_gradients();

  const double loss = loss_sum() / static_cast<double>(batch);
  if (std::isfinite(loss)) {
    sgd_.step(rate, [this](std::size_t parameter, Index position) { return gradient(parameter, position); });
  }
  return loss;
}

void TrainingStep::load(const Index* samples, const Shard& shard) {
  x_.resize(shard.samples.count, images_.shape);
  labels_.resize(static_cast<std::size_t>(shard.samples.count));
  for (Index n = 0; n < shard.samples.count; ++n) {
    copy_image(images_, samples[n], x_.sample(n));
    labels_[static_cast<std::size_t>(n)] = images_.labels[static_cast<std::size_t>(samples[n])];
  }
}

void TrainingStep::sum_gradients() {
  for (std::size_t p = 0; p < network_.trainables.parameters.size(); ++p) {
    const Parameter<float>& parameter = *network_.trainables.parameters[p];
    if (parameter.scope == GradientScope::global) continue;
    for (Index slot = 0; slot < parameter.slots; ++slot) {
      sums_.add(offsets_[p], parameter.gradient(slot), parameter.size);
    }
  }
  sums_.all_reduce();
}

double TrainingStep::loss_sum() const {
  double sum = 0;
  for (Index unit = 0; unit < kUnitCount; ++unit) sum += sums_[offsets_.back() + unit];
  return sum;
}

double TrainingStep::gradient(std::size_t p, Index position) const {
  const Parameter<float>& parameter = *network_.trainables.parameters[p];
  if (parameter.scope == GradientScope::global) return parameter.gradient(0)[position];
  return sums_[offsets_[p] + position];
}

}  // namespace syncbn::train
