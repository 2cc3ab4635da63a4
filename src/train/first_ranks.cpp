// SPDX-License-Identifier: MIT
#include "first_ranks.hpp"

#include <exception>

#include "collectives.hpp"
#include "watched.hpp"

namespace syncbn::train {

namespace {

/// With `factor` times the deadline of `comm`.
MPI_Comm duplicate_of(MPI_Comm comm, double factor) {
  MPI_Comm duplicate = MPI_COMM_NULL;
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Comm_idup(comm, &duplicate, &request), "MPI_Comm_idup");
  wait(comm, request, "duplicate of the communicator");
  CommunicatorOptions options;
  options.deadline_seconds = factor * communicator_over(comm).deadline_seconds();
  watch_over(duplicate, Communicator(duplicate, options));
  return duplicate;
}

/// Null on ranks from `count` on.
MPI_Comm first_of(Index count, MPI_Comm comm) {
  const int rank = rank_of(comm);
  MPI_Comm first = MPI_COMM_NULL;
  check(MPI_Comm_split(comm, rank < count ? 0 : MPI_UNDEFINED, rank, &first), "MPI_Comm_split");
  if (first != MPI_COMM_NULL) watch_over(first, communicator_over(first));
  return first;
}

void free_watched(MPI_Comm& comm) {
  if (comm == MPI_COMM_NULL) return;
  watch_no_more(comm);
  MPI_Comm_free(&comm);
}

}  // namespace

FirstRanks::FirstRanks(Index count, MPI_Comm comm)
    : count_(count), comm_(comm), exceptions_(std::uncaught_exceptions()) {
  if (count == size_of(comm)) return;
  waiting_ = duplicate_of(comm, 2);
  trainers_ = first_of(count, comm);
}

FirstRanks::~FirstRanks() {
  if (std::uncaught_exceptions() > exceptions_) return;
  free_watched(trainers_);
  free_watched(waiting_);
}

TrainingResult FirstRanks::train(const DataSet& data, const TrainingOptions& options, const Arm& arm,
                                 const Observer& observer, const Continuation& continuation) const {
  if (waiting_ == MPI_COMM_NULL) return train::train(data, options, arm, comm_, observer, continuation);
  Observer heard = observer;
  heard.on_work = [&] {
    still_here(waiting_);
    observer.on_work();
  };
  TrainingResult result;
  all_or_nothing(waiting_, [&] {
    if (trainers_ != MPI_COMM_NULL) result = train::train(data, options, arm, trainers_, heard, continuation);
  });
  broadcast_result(waiting_, result);
  return result;
}

}  // namespace syncbn::train
