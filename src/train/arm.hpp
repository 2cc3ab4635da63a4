// SPDX-License-Identifier: MIT
// The ways to run batch norm in a data-parallel training that a comparison sets side by side.
#pragma once

#include <functional>
#include <string>

#include <mpi.h>

#include "network.hpp"
#include "syncbn/communicator.hpp"

namespace syncbn::train {

/// Which ranks train, and which of them share their batch statistics.
struct Arm {
  enum class Kind {
    single,  ///< Rank 0 alone, with the full batch.
    sync,    ///< All ranks train and share.
    local,   ///< All ranks train, each with the statistics of its own samples.
    group,   ///< All ranks train; blocks of group_size consecutive ranks share.
  };
  Kind kind = Kind::sync;
  Index group_size = 0;

  /// "single", "sync", "local" or "group:k". Throws UsageError.
  static Arm parse(const std::string& text);
  std::string name() const;
};

/// The ranks of an arm, as they train. Move-only in spirit: one per training.
class ArmRanks {
 public:
  /// Collective over `comm`, which must outlive this object. For Arm::Kind::single: called by rank 0 alone. `on_work`, if
  /// there is one, tells those who do not train, but wait for this rank.
  ArmRanks(const Arm& arm, MPI_Comm comm, std::function<void()> on_work = {});

  MPI_Comm trainers() const noexcept { return trainers_; }  ///< Who sums gradients.
  Index rank() const noexcept { return rank_; }             ///< In trainers().
  Index size() const noexcept { return size_; }

  /// Tells whoever may wait for this rank that it is at work, so that their deadlines start again: to be called every few
  /// images of an evaluation. Local.
  void still_here() const;

  /// Makes batch norm layers of this arm. Their parameter gradients are global if all trainers share, else local.
  BatchNorm make_norm(Index num_features, const std::string& name, Activation activation, DataType type) const;
  BatchNorm make_norm(BatchNormOptions options) const;

  /// Whether all trainers normalize with the same statistics.
  bool share_statistics() const noexcept { return norm_group_.size() == size_; }

 private:
  MPI_Comm trainers_;
  std::function<void()> on_work_;
  Index rank_;
  Index size_;
  Communicator norm_group_;
  ParameterGradients gradients_ = ParameterGradients::global;
};

}  // namespace syncbn::train
