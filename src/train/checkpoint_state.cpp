// SPDX-License-Identifier: MIT
#include "checkpoint_state.hpp"

#include <algorithm>

#include "collectives.hpp"

namespace syncbn::train {

namespace {

/// (own) of this rank becomes (ranks, own) on rank 0.
template <class T>
void gather(const ArmRanks& ranks, std::vector<T>& values) {
  std::vector<T> all(ranks.rank() == 0 ? values.size() * static_cast<std::size_t>(ranks.size()) : 0);
  gather_bytes(ranks.trainers(), values.data(), static_cast<Index>(values.size() * sizeof(T)), all.data());
  if (ranks.rank() == 0) values = std::move(all);
}

}  // namespace

void take_state(const Network<float>& network, const Sgd<float>& sgd, const ArmRanks& ranks, Checkpoint& checkpoint) {
  for (const Parameter<float>* parameter : network.trainables.parameters) {
    checkpoint.parameters.insert(checkpoint.parameters.end(), parameter->values, parameter->values + parameter->size);
  }
  for (const std::vector<float>& velocity : sgd.velocity()) {
    checkpoint.velocity.insert(checkpoint.velocity.end(), velocity.begin(), velocity.end());
  }
  for (const BatchNorm* norm : network.trainables.norms) {
    for (const ChannelVector* values : {&norm->running_mean(), &norm->running_var()}) {
      checkpoint.running_stats.insert(checkpoint.running_stats.end(), values->data<float>(),
                                      values->data<float>() + values->size());
    }
    checkpoint.batches_tracked.push_back(norm->num_batches_tracked());
  }
  if (checkpoint.copies > 1) {
    gather(ranks, checkpoint.running_stats);
    gather(ranks, checkpoint.batches_tracked);
  }
}

void give_state(const Checkpoint& checkpoint, const ArmRanks& ranks, Network<float>& network, Sgd<float>& sgd) {
  const float* parameters = checkpoint.parameters.data();
  const float* velocity = checkpoint.velocity.data();
  for (std::size_t p = 0; p < network.trainables.parameters.size(); ++p) {
    const Parameter<float>& parameter = *network.trainables.parameters[p];
    std::copy_n(parameters, parameter.size, parameter.values);
    std::copy_n(velocity, parameter.size, sgd.velocity()[p].begin());
    parameters += parameter.size;
    velocity += parameter.size;
  }
  const auto copies = static_cast<std::size_t>(checkpoint.copies);
  const std::size_t mine = checkpoint.copies > 1 ? static_cast<std::size_t>(ranks.rank()) : 0;
  const float* stats = checkpoint.running_stats.data() + mine * (checkpoint.running_stats.size() / copies);
  const std::int64_t* tracked = checkpoint.batches_tracked.data() + mine * network.trainables.norms.size();
  for (BatchNorm* norm : network.trainables.norms) {
    for (ChannelVector* values : {&norm->running_mean(), &norm->running_var()}) {
      std::copy_n(stats, values->size(), values->data<float>());
      stats += values->size();
    }
    norm->set_num_batches_tracked(*tracked++);
  }
}

}  // namespace syncbn::train
