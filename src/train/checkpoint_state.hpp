// SPDX-License-Identifier: MIT
// Between a network in training and a Checkpoint.
#pragma once

#include "arm.hpp"
#include "checkpoint.hpp"
#include "network.hpp"
#include "sgd.hpp"

namespace syncbn::train {

/// Copies parameters, velocity and running statistics (of all ranks, if checkpoint.copies is more than 1) to the checkpoint
/// of rank 0; on the others it is not whole then. Collective over the trainers.
void take_state(const Network<float>& network, const Sgd<float>& sgd, const ArmRanks& ranks, Checkpoint& checkpoint);

/// The reverse, on every rank, from a checkpoint that all have. Local. Its sizes must be those of the network.
void give_state(const Checkpoint& checkpoint, const ArmRanks& ranks, Network<float>& network, Sgd<float>& sgd);

}  // namespace syncbn::train
