// SPDX-License-Identifier: MIT
// The networks that can be trained.
#pragma once

#include <functional>
#include <string>

#include "module.hpp"

namespace syncbn::train {

/// Makes the batch norm of `num_features` channels with this name and activation: here the arms of a comparison differ.
/// Collective over the layer's group.
using NormFactory = std::function<BatchNorm(Index num_features, const std::string& name, Activation activation)>;

/// A network and what can be trained in it.
template <class T>
struct Network {
  std::unique_ptr<Module<T>> root;
  Trainables<T> trainables;
};

bool is_network(const std::string& name);

/// All names, separated by commas.
std::string network_names();

/// "mlp": Linear 128 - BN - ReLU - Linear 64 - BN - ReLU - Linear.
/// "cnn": conv3x3 16 - BN - ReLU - max pool - conv3x3 32 - BN - ReLU - average pool, again until one side is at most 6
/// - Linear.
/// "resnet": conv3x3 16 - BN+ReLU - residual blocks of 16, 32 (stride 2) and 64 (stride 2) channels - mean over all
/// positions - Linear. With ReLUs and residual sums fused into batch norm; the others have ReLUs apart.
///
/// Weights are zero until initialize(). Collective over the group of `make_norm`'s layers.
/// Throws UsageError if the images are too small for it ("cnn": below 4 x 4), before anything collective. `name` must be
/// one of the networks.
template <class T>
Network<T> make_network(const std::string& name, const ImageShape& input, Index classes, const NormFactory& make_norm);

/// Initial weights, uniform within each parameter's bound; biases stay 0. A number depends on (seed, parameter,
/// position) alone.
template <class T>
void initialize(Network<T>& network, std::uint64_t seed);

/// Moves each weight to a neighbouring floating-point number, up or down at random: one rounding error.
template <class T>
void nudge_weights(Network<T>& network, std::uint64_t seed);

}  // namespace syncbn::train
