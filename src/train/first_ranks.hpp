// SPDX-License-Identifier: MIT
// Trainings on some of the ranks, while the others wait for what comes of them.
#pragma once

#include <string>

#include <mpi.h>

#include "trainer.hpp"

namespace syncbn::train {

/// The first `count` ranks of a communicator, as a communicator of their own: who trains.
///
/// The others wait with twice the deadline, and what rank 0 asks them in the course of its steps and evaluations (RollCall)
/// starts it again. So if a rank that trains is missing, those that train with it say so, and in which message, and the others
/// hear it from rank 0; they speak themselves only if that one is missing. If a rank that waits is missing, rank 0 finds out
/// when the deadline has passed, and the end of its step (of its evaluation) is the end for all.
class FirstRanks {
 public:
  /// All of `comm`, which must outlive this object, if `count` is its size: then nothing is made. Collective over `comm`; in
  /// MPI_Comm_split there is no deadline, but all ranks are known to be there just before. Throws MpiError, TimeoutError.
  FirstRanks(Index count, MPI_Comm comm);
  /// Collective. Left to MPI_Finalize if an exception is on its way: the others may not come.
  ~FirstRanks();
  FirstRanks(const FirstRanks&) = delete;
  FirstRanks& operator=(const FirstRanks&) = delete;

  /// train() by these ranks. Returns the result, or throws the error, on all ranks of the communicator.
  /// Collective over the communicator.
  TrainingResult train(const DataSet& data, const TrainingOptions& options, const Arm& arm, const Observer& observer,
                       const Continuation& continuation) const;

  Index count() const noexcept { return count_; }

 private:
  std::string place() const;

  Index count_;
  MPI_Comm comm_;                      // of all
  MPI_Comm waiting_ = MPI_COMM_NULL;   // of all, with twice the deadline; null if all train
  MPI_Comm trainers_ = MPI_COMM_NULL;  // null on the others, and if all train
  int exceptions_;                     // on their way at construction
};

}  // namespace syncbn::train
