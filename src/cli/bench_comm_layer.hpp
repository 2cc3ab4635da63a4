// SPDX-License-Identifier: MIT
// Layers with nearly no work: what they take longer in a group than alone is the group's message.
#pragma once

#include <utility>
#include <vector>

#include <mpi.h>

#include "bench.hpp"
#include "bench_batch.hpp"
#include "syncbn/batch_norm.hpp"
#include "syncbn/communicator.hpp"

namespace syncbn::cli::bench {

constexpr const char* name_of(Exchange exchange) noexcept {
  switch (exchange) {
    case Exchange::all_reduce:
      return "all_reduce";
    case Exchange::all_gather:
      return "all_gather";
    case Exchange::automatic:
      break;
  }
  return "automatic";
}

/// The ranks as groups with one exchange each; none if there is one rank.
struct Groups {
  explicit Groups(MPI_Comm comm);
  std::vector<std::pair<Exchange, Communicator>> groups;
};

/// Two rows a rank.
Batch tiny_batch(const Options& options, Index channels, MPI_Comm comm);

class TinyLayer {
 public:
  /// Collective over `communicator`, as the rest.
  TinyLayer(const Options& options, const Communicator& communicator, Batch& batch);

  /// Backward needs a forward before it.
  void run(Pass pass) {
    begin(pass);
    finish(pass);
  }
  void begin(Pass pass);
  void finish(Pass pass);
  void progress() { layer_.progress(); }

 private:
  BatchNorm layer_;
  Batch* batch_;
  BatchNormCache cache_;
  BatchNormGradients gradients_;
};

}  // namespace syncbn::cli::bench
