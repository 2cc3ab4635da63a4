// SPDX-License-Identifier: MIT
#include "evaluate.hpp"

#include <algorithm>

#include "collectives.hpp"
#include "loss.hpp"

namespace syncbn::train {

void share_running_stats(Network<float>& network, const ArmRanks& ranks) {
  for (BatchNorm* norm : network.trainables.norms) {
    for (ChannelVector* values : {&norm->running_mean(), &norm->running_var()}) {
      broadcast_bytes(ranks.trainers(), values->data<float>(), values->size() * static_cast<Index>(sizeof(float)));
    }
  }
}

double test_accuracy(Network<float>& network, const LabelledImages& images, const ArmRanks& ranks) {
  constexpr Index kBlock = 64;
  Tensor<float> x;
  std::int64_t correct = 0;
  for (Index block = ranks.rank(); block * kBlock < images.count; block += ranks.size()) {
    const Index first = block * kBlock;
    const Index count = std::min(kBlock, images.count - first);
    x.resize(count, images.shape);
    for (Index n = 0; n < count; ++n) copy_image(images, first + n, x.sample(n));
    const Tensor<float>& logits = network.root->forward(x, {Mode::eval, {{0, count}}});
    correct += count_correct(logits, images.labels.data() + first);
  }
  all_reduce_sum(ranks.trainers(), &correct, 1);
  return static_cast<double>(correct) / static_cast<double>(images.count);
}

}  // namespace syncbn::train
