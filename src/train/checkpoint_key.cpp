// SPDX-License-Identifier: MIT
// What a checkpoint must have in common with the training that goes on from it.
#include <array>
#include <charconv>

#include "checkpoint.hpp"
#include "fnv.hpp"
#include "network.hpp"
#include "run_folder.hpp"

namespace syncbn::train {

namespace {

/// The shortest decimal number that is read back as the same double.
std::string text_of(double value) {
  std::array<char, 32> text{};
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

/// "3,6", or "none".
std::string text_of(const std::vector<Index>& numbers) {
  std::string text;
  for (const Index number : numbers) {
    if (!text.empty()) text += ',';
    text += std::to_string(number);
  }
  return text.empty() ? "none" : text;
}

std::string text_of(const ImageShape& shape) {
  return std::to_string(shape.channels) + "x" + std::to_string(shape.height) + "x" + std::to_string(shape.width);
}

void add(Fnv1a& hash, const LabelledImages& images) {
  hash.add(&images.count, sizeof(images.count));
  hash.add(images.pixels.data(), images.pixels.size());
  hash.add(images.labels.data(), images.labels.size());
}

std::uint64_t fingerprint(const DataSet& data) {
  Fnv1a hash;
  add(hash, data.train);
  add(hash, data.test);
  return hash.value();
}

/// The sizes of a network, from one that no other rank knows of.
void set_sizes(TrainingKey& key, const std::string& network, const ImageShape& image) {
  const Network<float> sample =
      make_network<float>(network, image, kClassCount, [](Index num_features, const std::string& name, Activation) {
        return BatchNorm({.num_features = num_features, .name = name});
      });
  for (const Parameter<float>* parameter : sample.trainables.parameters) key.weights += parameter->size;
  for (const BatchNorm* norm : sample.trainables.norms) key.channels += norm->options().num_features;
  key.norms = static_cast<Index>(sample.trainables.norms.size());
}

}  // namespace

TrainingKey key_of(const DataSet& data, const TrainingOptions& options, const Arm& arm, Index ranks) {
  TrainingKey key;
  set_sizes(key, options.network, data.train.shape);
  key.steps_per_epoch = data.train.count / options.batch;
  key.steps = key.steps_per_epoch * options.epochs;
  const bool ranks_differ = arm.kind == Arm::Kind::local || arm.kind == Arm::Kind::group;
  if (ranks_differ) key.copies = ranks;

  constexpr auto kProgram = KeyEntry::Decider::program;
  const SgdOptions& sgd = options.sgd;
  key.entries = {{"arm", arm.name()},
                 {"ranks", ranks_differ ? std::to_string(ranks) : "any"},
                 {"network", options.network},
                 {"classes", std::to_string(kClassCount), kProgram},
                 {"image", text_of(data.train.shape)},
                 {"weights", std::to_string(key.weights), kProgram},
                 {"batch norm layers", std::to_string(key.norms), kProgram},
                 {"batch norm channels", std::to_string(key.channels), kProgram},
                 {"data", hex_of(fingerprint(data))},
                 {"batch", std::to_string(options.batch)},
                 {"epochs", std::to_string(options.epochs)},
                 {"seed", std::to_string(options.seed)},
                 {"shard", options.sharding.name()},
                 {"evaluation of ranks", options.evaluation.compares_ranks ? "yes" : "no", kProgram},
                 {"precise evaluation", options.evaluation.is_precise ? "yes" : "no", kProgram},
                 {"start", options.start == TrainingOptions::Start::nudged ? "nudged" : "seeded", kProgram},
                 {"lr", text_of(sgd.learning_rate)},
                 {"schedule", name_of(sgd.schedule)},
                 {"warmup", std::to_string(sgd.warmup_steps)},
                 {"milestones", text_of(sgd.milestones)},
                 {"lr-gamma", text_of(sgd.lr_gamma)},
                 {"momentum", text_of(sgd.momentum)},
                 {"weight-decay", text_of(sgd.weight_decay)}};
  return key;
}

}  // namespace syncbn::train
