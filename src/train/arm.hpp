// SPDX-License-Identifier: MIT
// The ways to run batch norm in a data-parallel training that a comparison sets side by side.
#pragma once

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
  /// Collective over `comm`, which must outlive this object. For Arm::Kind::single: called by rank 0 alone.
  ArmRanks(const Arm& arm, MPI_Comm comm);

  MPI_Comm trainers() const noexcept { return trainers_; }  ///< Who sums gradients.
  Index rank() const noexcept { return rank_; }             ///< In trainers().
  Index size() const noexcept { return size_; }

  /// Makes batch norm layers of this arm. Their parameter gradients are global if all trainers share, else local.
  BatchNorm make_norm(Index num_features, const std::string& name, Activation activation, DataType type) const;
  BatchNorm make_norm(BatchNormOptions options) const;

  /// Whether all trainers normalize with the same statistics.
  bool share_statistics() const noexcept { return norm_group_.size() == size_; }

 private:
  MPI_Comm trainers_;
  Index rank_;
  Index size_;
  Communicator norm_group_;
  ParameterGradients gradients_ = ParameterGradients::global;
};

}  // namespace syncbn::train
