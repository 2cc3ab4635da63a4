// SPDX-License-Identifier: MIT
// What the handles are. Bound memory is copied into the layer when a call begins and out of it when it has ended well: C numbers
// a call, and the layer's promise that a failed call changes nothing holds for the caller's memory, too.
#pragma once

#include <array>
#include <memory>
#include <set>
#include <utility>

#include "syncbn/batch_norm.hpp"
#include "syncbn/communicator.hpp"
#include "syncbn/syncbn.h"

namespace syncbn::capi {

/// A layer and the caller's memory for its state.
struct BoundLayer {
  explicit BoundLayer(BatchNorm made) : layer(std::move(made)) {}

  BatchNorm layer;
  std::array<void*, 4> bound = {};  ///< By SYNCBN_GAMMA and so on; null: the layer's own.
  BatchNormGradients gradients;     ///< Of the pass in flight.
  void *dgamma = nullptr, *dbeta = nullptr;

  ChannelVector& state(std::int32_t which);
  void read_bound();
  void write_bound();  ///< Running statistics only: nothing else is changed by a pass.
};

/// A communicator, and the layers that join() may change.
struct SharedCommunicator {
  explicit SharedCommunicator(Communicator made) : communicator(std::move(made)) {}

  Communicator communicator;
  std::set<BoundLayer*> layers;
};

}  // namespace syncbn::capi

struct syncbn_communicator {
  std::shared_ptr<syncbn::capi::SharedCommunicator> shared;
};

struct syncbn_layer {
  std::shared_ptr<syncbn::capi::SharedCommunicator> communicator;
  syncbn::capi::BoundLayer bound;
};

struct syncbn_cache {
  syncbn::BatchNormCache cache;
};
