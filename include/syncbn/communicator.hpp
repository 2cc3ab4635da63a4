// SPDX-License-Identifier: MIT
// Which processes share their statistics.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <mpi.h>

#include "syncbn/export.h"

namespace syncbn {

namespace comm {
class Group;
}

/// How the ranks' messages become one. The result is the same bytes either way.
enum class Exchange : std::int32_t {
  automatic = 0,   ///< By the number of ranks and the size of the message: all_gather while both are small.
  all_reduce = 1,  ///< One MPI_Iallreduce with a merge of ours as its operation: some log2(P) steps.
  all_gather = 2,  ///< One MPI_Iallgather, and every rank merges for itself: one step, P messages to each rank.
};

struct CommunicatorOptions {
  /// How long a rank waits for the others, in seconds, > 0, before all of them get an error that says who is missing.
  /// nullopt: the environment variable SYNCBN_DEADLINE_SECONDS; without it 600. May differ between ranks: the first one
  /// to give up decides for all. It has to be longer than the longest time that a rank computes between two steps of
  /// another.
  std::optional<double> deadline_seconds;

  /// Must be the same on all ranks. automatic: the environment variable SYNCBN_EXCHANGE (automatic, all_reduce,
  /// all_gather), if there is one.
  Exchange exchange = Exchange::automatic;
};

/// all <- every rank's `bytes` bytes, in the order of ranks: size() times `bytes`. `bytes` is the same on all ranks. May
/// throw anything derived from std::exception. The first call, at construction, gathers rank and size, two int64, to see
/// that it does what it should.
using AllGather = std::function<void(const void* mine, std::size_t bytes, void* all)>;

/// The group of ranks whose batches count as one. A value: copies share the same group.
///
/// MPI_Init and MPI_Finalize are the program's business. Objects may outlive MPI_Finalize; they just cannot communicate
/// then.
///
/// Ranks in error messages are those of the group. A rank that is missing is found out about half a second after the deadline:
/// so long the others take to ask each other. A rank whose own exception destroys a layer ends the group for all, if they
/// need it there.
///
/// After a TimeoutError, and after any error that says so, the group cannot be used any more: every further call throws.
/// Operations that never ended keep their memory until the process ends. What the program does then is its own affair;
/// MPI_Finalize waits for missing ranks, MPI_Abort does not.
class SYNCBN_API Communicator {
 public:
  /// This process alone: local batch norm. Needs no MPI.
  Communicator();

  /// All ranks of `comm`. Works on duplicates, so the caller's messages and error handler are not touched. Collective over
  /// `comm`. Throws OptionError, MismatchError or TimeoutError on all ranks, MpiError if MPI is not running.
  explicit Communicator(MPI_Comm comm, const CommunicatorOptions& options = {});

  /// `size` processes that have something else than MPI, of which this one is number `rank`. Every message is one call of
  /// `all_gather`, made inside the call that begins it. Deadlines are the callback's business: it should throw when ranks
  /// are missing. Collective.
  Communicator(int rank, int size, AllGather all_gather, const CommunicatorOptions& options = {});

  /// This rank's group among groups of `ranks` consecutive ranks of `comm`: with 4, ranks 0 to 3 are a group, then 4 to
  /// 7, and so on; the last one is smaller if need be. 1 is local batch norm; the size of `comm` or more is all of it.
  /// Must be the same number on all ranks, or all throw MismatchError; OptionError if it is less than 1. Collective over
  /// `comm`, in which MPI_Comm_split has a deadline only if MPI was initialized with MPI_THREAD_MULTIPLE.
  static Communicator groups_of(int ranks, MPI_Comm comm, const CommunicatorOptions& options = {});

  /// This rank's group among groups of the ranks of `comm` that share a node's memory. As groups_of().
  static Communicator per_node(MPI_Comm comm, const CommunicatorOptions& options = {});

  int rank() const noexcept;
  int size() const noexcept;

  /// How long this rank waits for the others: CommunicatorOptions::deadline_seconds, or what stands in for it.
  double deadline_seconds() const noexcept;

  /// For a rank that has run out of data while others have not: answers in all layers made with this communicator as a rank
  /// with no samples, updates their running statistics, and returns when all ranks have called it, on each of them the
  /// lowest rank that had data in the last step, from which parameters may be broadcast. It knows nothing of messages of the
  /// program's own (gradients, for instance), nor of other communicators: join one when the other is done. Throws what the
  /// others throw; then it has to be called again, and layers refuse to train until it has returned. Collective in the
  /// end. Needs MPI, and MPI_THREAD_MULTIPLE if layers are used by several threads.
  int join();

  /// Waits for a request of the caller's on these ranks with the deadline of this communicator: trainers get the same
  /// errors for messages of their own. `what` says in errors what it was, as "[gradients] step 12". Throws TimeoutError
  /// or MismatchError; the request and its buffers must be left alone then.
  void wait(MPI_Request& request, const std::string& what) const;

  /// For a rank that is busy for long while the others wait for it (it writes a checkpoint, it evaluates alone): their deadlines
  /// start again. To be called every now and then; it sends each of them at most one small note a second, or four
  /// in the time of the deadline. Local.
  void still_here() const;

  /// The group behind it, for the layer's own use.
  comm::Group& group() const noexcept { return *group_; }

 private:
  explicit Communicator(std::shared_ptr<comm::Group> group) : group_(std::move(group)) {}

  std::shared_ptr<comm::Group> group_;
};

}  // namespace syncbn
