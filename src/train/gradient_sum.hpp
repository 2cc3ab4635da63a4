// SPDX-License-Identifier: MIT
// The sums over units and ranks that make the gradients and the loss of the global batch.
#pragma once

#include <vector>

#include <mpi.h>

#include "buffer.hpp"

namespace syncbn::train {

/// Sums of what the units of a batch contribute, and of what the ranks do: fill unit(), rank() and set_loss(), all_gather(),
/// read. Notes of the ranks travel along, unsummed.
///
/// Every contribution goes to every rank, and each rank adds them up for itself, in double: those of units in the order of
/// units, 0 to kUnitCount - 1, those of ranks in the order of ranks. So a sum over units is a function of the contributions
/// alone: the same bits on any number of ranks, by construction, whatever the numbers are. (DESIGN 9)
///
/// Memory: 4 * kUnitCount + 8 bytes a weight on every rank. Cost of a step: one message, of 4 bytes a weight and unit to each
/// other rank (none if there is one rank), kUnitCount additions a weight, no allocation.
class GradientSum {
 public:
  /// @param unit_size  Numbers that every unit contributes.
  /// @param rank_size  Numbers that every rank contributes.
  /// @param note_size  Numbers that every rank tells the others.
  /// `comm` is borrowed. Local. Throws UsageError if the message were longer than MPI can count (128 GiB).
  GradientSum(MPI_Comm comm, Index unit_size, Index rank_size, Index note_size);
  ~GradientSum();
  GradientSum(const GradientSum&) = delete;
  GradientSum& operator=(const GradientSum&) = delete;

  /// What this rank contributes, to be written before all_gather(). `unit` must be one of units_of_rank().
  float* unit(Index unit) noexcept { return unit_at(unit); }  ///< (unit_size)
  float* rank() noexcept { return rank_at(rank_); }           ///< (rank_size)
  void set_loss(Index unit, double loss) noexcept;

  /// What all ranks should know, without a message of its own: numbers, and flags 0 to 63.
  float* notes() noexcept { return notes_at(rank_); }  ///< (note_size)
  void set_flag(int flag, bool is_set) noexcept;

  /// Collective: one all-gather, waited for with the deadline of whoever watches over the communicator. Throws MpiError and
  /// what wait() (watched.hpp) throws.
  void all_gather();

  /// After all_gather(), the same on all ranks.
  double unit_sum(Index index) const noexcept { return unit_sums_[static_cast<std::size_t>(index)]; }
  double rank_sum(Index index) const noexcept { return rank_sums_[static_cast<std::size_t>(index)]; }
  double loss_sum() const noexcept;
  bool is_flag_set(int flag) const noexcept;  ///< By any rank.
  const float* notes_of(Index rank) const noexcept { return const_cast<GradientSum*>(this)->notes_at(rank); }

 private:
  float* rank_at(Index rank) noexcept;
  float* notes_at(Index rank) noexcept { return rank_at(rank) + rank_sums_.size(); }
  float* unit_at(Index unit) noexcept;
  const float* rank_at(Index rank) const noexcept { return const_cast<GradientSum*>(this)->rank_at(rank); }
  const float* unit_at(Index unit) const noexcept { return const_cast<GradientSum*>(this)->unit_at(unit); }

  // The message is counted in lines of kAlignment bytes. Rank by rank: the rank's numbers, notes and flags, then its units, each
  // with its numbers and loss.
  MPI_Comm comm_;
  Index rank_;
  Index rank_count_;
  Index unit_lines_;
  Index rank_lines_;
  std::vector<int> line_counts_;  // (ranks)
  std::vector<int> first_lines_;  // (ranks)
  std::vector<Index> owners_;     // (kUnitCount): whose unit it is
  MPI_Datatype line_ = MPI_DATATYPE_NULL;
  Buffer<float> message_;
  Buffer<double> unit_sums_;
  Buffer<double> rank_sums_;
};

}  // namespace syncbn::train
