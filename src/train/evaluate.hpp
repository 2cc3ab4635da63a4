// SPDX-License-Identifier: MIT
#pragma once

#include "arm.hpp"
#include "dataset.hpp"
#include "network.hpp"

namespace syncbn::train {

/// Gives all trainers the running statistics of rank 0: they differ where batch norm does not see the whole batch, and
/// the network that is evaluated, hashed and kept must be one. Training itself never reads them. Collective.
void share_running_stats(Network<float>& network, const ArmRanks& ranks);

/// Fraction of `images` that the network recognizes in eval mode. The images are cut into fixed blocks that the
/// trainers share, so the answer does not depend on their number. Collective: one all-reduce of one integer.
double test_accuracy(Network<float>& network, const LabelledImages& images, const ArmRanks& ranks);

}  // namespace syncbn::train
