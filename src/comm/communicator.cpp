// SPDX-License-Identifier: MIT
#include "syncbn/communicator.hpp"

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "comm/callback_transport.hpp"
#include "comm/group.hpp"
#include "comm/group_options.hpp"
#include "comm/mpi_error.hpp"
#include "comm/opening.hpp"

namespace syncbn {
namespace {

using comm::Group;
using comm::GroupOptions;
using comm::OwnPass;
using comm::Problem;

std::shared_ptr<Group> group_over(std::unique_ptr<comm::Transport> transport, const CommunicatorOptions& options) {
  std::optional<Problem> problem;
  const GroupOptions group_options = comm::group_options_from(options, problem);
  return std::make_shared<Group>(std::move(transport), group_options, problem);
}

/// Does the program's all-gather give every rank's bytes, in the order of ranks? The same answer on all ranks.
void check_all_gather(int rank, int size, const AllGather& all_gather) {
  const std::int64_t mine[2] = {rank, size};
  std::vector<std::int64_t> all(2 * static_cast<std::size_t>(size), -1);
  try {
    all_gather(mine, sizeof mine, all.data());
  } catch (const std::exception& error) {
    throw MpiError(std::string("[Communicator construction] the all-gather that the program gave failed: ") +
                   error.what());
  }
  for (std::int64_t r = 0; r < size; ++r) {
    const std::int64_t* got = all.data() + 2 * r;
    if (got[0] == r && got[1] == size) continue;
    throw OptionError("[Communicator construction] the all-gather that the program gave brings rank " +
                      std::to_string(got[0]) + " of " + std::to_string(got[1]) + " in place " + std::to_string(r) +
                      " of " + std::to_string(size));
  }
}

class RequestAwaited final : public comm::Awaited {
 public:
  RequestAwaited(MPI_Request& request, const std::string& what) : request_(request), what_(what) {}
  bool test() override {
    comm::check_mpi_is_running();
    int done = 0;
    comm::check(MPI_Test(&request_, &done, MPI_STATUS_IGNORE), "MPI_Test");
    is_done_ = done != 0;
    return is_done_;
  }
  std::string place() const override { return what_; }
  /// Who has left the group's own channel has left the group, and will not wait in it either.
  bool needs(std::int32_t channel, std::int64_t) const override { return !is_done_ && channel == comm::kOwnChannel; }

 private:
  MPI_Request& request_;
  const std::string& what_;
  bool is_done_ = false;
};

/// A blocking call in a thread of its own, which is left behind if it never ends.
class CallAwaited final : public comm::Awaited {
 public:
  explicit CallAwaited(std::function<int(MPI_Comm*)> call) : state_(std::make_shared<State>()) {
    std::thread([state = state_, call = std::move(call)] {
      state->code = call(&state->result);
      state->is_done.store(true, std::memory_order_release);
    }).detach();
  }
  bool test() override {
    if (!state_->is_done.load(std::memory_order_acquire)) return false;
    comm::check(state_->code, "MPI_Comm_split");
    return true;
  }
  std::string place() const override { return "[Communicator groups]"; }
  bool needs(std::int32_t, std::int64_t) const override { return false; }
  MPI_Comm result() const { return state_->result; }

 private:
  struct State {
    std::atomic<bool> is_done{false};
    int code = MPI_SUCCESS;
    MPI_Comm result = MPI_COMM_NULL;
  };
  std::shared_ptr<State> state_;
};

/// Splits the ranks of `comm` by call(comm of all, result), after they have agreed on what they want.
Communicator split(MPI_Comm comm, const std::string& wanted, const std::optional<Problem>& problem,
                   const CommunicatorOptions& options, const std::function<int(MPI_Comm, MPI_Comm*)>& call) {
  const Communicator all(comm, options);
  const auto other = all.group().pledge(OwnPass::split, wanted.data(), wanted.size(), {}, problem);
  if (other) {
    throw MismatchError("[Communicator groups] rank " + std::to_string(other->rank) + " of " +
                        std::to_string(all.size()) + " wants " + reinterpret_cast<const char*>(other->other) +
                        ", rank 0 wants " + reinterpret_cast<const char*>(other->first));
  }
  if (all.size() == 1) return Communicator();

  int thread_level = MPI_THREAD_SINGLE;
  comm::check(MPI_Query_thread(&thread_level), "MPI_Query_thread");
  MPI_Comm part = MPI_COMM_NULL;
  if (thread_level == MPI_THREAD_MULTIPLE) {
    CallAwaited splitting([call, comm](MPI_Comm* result) { return call(comm, result); });
    all.group().watch().wait(splitting);
    part = splitting.result();
  } else {
    comm::check(call(comm, &part), "MPI_Comm_split");
  }
  Communicator result(part, options);
  MPI_Comm_free(&part);
  return result;
}

}  // namespace

Communicator::Communicator()
    : group_(std::make_shared<Group>(std::make_unique<comm::SingleTransport>(), GroupOptions(), std::nullopt)) {}

Communicator::Communicator(MPI_Comm comm, const CommunicatorOptions& options) {
  std::optional<Problem> problem;
  const GroupOptions group_options = comm::group_options_from(options, problem);
  group_ = std::make_shared<Group>(comm::open_transport(comm, group_options.deadline_seconds), group_options, problem);
}

Communicator::Communicator(int rank, int size, AllGather all_gather, const CommunicatorOptions& options) {
  if (size < 1 || rank < 0 || rank >= size || !all_gather) {
    throw OptionError("[Communicator construction] rank " + std::to_string(rank) + " of " + std::to_string(size) +
                      (all_gather ? " does not exist" : " has no all-gather"));
  }
  if (size == 1) {
    group_ = Communicator().group_;
    return;
  }
  check_all_gather(rank, size, all_gather);
  group_ = group_over(std::make_unique<comm::CallbackTransport>(rank, size, std::move(all_gather)), options);
}

Communicator Communicator::groups_of(int ranks, MPI_Comm comm, const CommunicatorOptions& options) {
  std::optional<Problem> problem;
  if (ranks < 1) {
    problem = Problem{ErrorCode::option, "[Communicator groups] groups of " + std::to_string(ranks) +
                                             " ranks are not possible, wanted at least 1"};
  }
  return split(comm, "groups of " + std::to_string(ranks) + " ranks", problem, options,
               [ranks](MPI_Comm all, MPI_Comm* part) {
                 int rank = 0;
                 MPI_Comm_rank(all, &rank);
                 return MPI_Comm_split(all, rank / ranks, rank, part);
               });
}

Communicator Communicator::per_node(MPI_Comm comm, const CommunicatorOptions& options) {
  return split(comm, "a group for each node", std::nullopt, options, [](MPI_Comm all, MPI_Comm* part) {
    int rank = 0;
    MPI_Comm_rank(all, &rank);
    return MPI_Comm_split_type(all, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, part);
  });
}

int Communicator::rank() const noexcept { return group_->rank(); }

int Communicator::size() const noexcept { return group_->size(); }

double Communicator::deadline_seconds() const noexcept { return group_->watch().deadline(); }

int Communicator::join() { return group_->join(); }

void Communicator::still_here() const { group_->watch().say_alive(); }

void Communicator::wait(MPI_Request& request, const std::string& what) const {
  RequestAwaited awaited(request, what);
  group_->watch().throw_if_failed();
  group_->watch().wait(awaited);
}

}  // namespace syncbn
