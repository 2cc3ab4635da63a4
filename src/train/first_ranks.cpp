// SPDX-License-Identifier: MIT
#include "first_ranks.hpp"

#include <exception>

#include "collectives.hpp"
#include "roll_call.hpp"
#include "watched.hpp"

namespace syncbn::train {

namespace {

constexpr double kPatience = 2;  // deadlines that those who wait have

/// With kPatience times the deadline of `comm`.
MPI_Comm duplicate_of(MPI_Comm comm) {
  MPI_Comm duplicate = MPI_COMM_NULL;
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Comm_idup(comm, &duplicate, &request), "MPI_Comm_idup");
  wait(comm, request, "duplicate of the communicator");
  CommunicatorOptions options;
  options.deadline_seconds = kPatience * communicator_over(comm).deadline_seconds();
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
  waiting_ = duplicate_of(comm);
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
  RollCall roll_call(waiting_, count_, deadline_seconds_of(waiting_) / kPatience, place());
  Observer heard = observer;
  heard.on_work = [&] {
    roll_call.ask();
    if (count_ == 1) roll_call.throw_if_missing();
    observer.on_work();
  };
  Continuation together = continuation;  // the wish to stop reaches all that train in the same step
  together.wants_stop = [&] { return roll_call.is_missing_somebody() || continuation.wants_stop(); };
  TrainingResult result;
  all_or_nothing(waiting_, [&] {
    roll_call.during([&] {
      if (trainers_ != MPI_COMM_NULL) result = train::train(data, options, arm, trainers_, heard, together);
    });
  });
  broadcast_result(waiting_, result);
  return result;
}

std::string FirstRanks::place() const {
  return "[training on " + std::to_string(count_) + " of " + std::to_string(size_of(comm_)) + " ranks]";
}

}  // namespace syncbn::train
