// SPDX-License-Identifier: MIT
#include "faults/shim.hpp"

#include <chrono>
#include <csignal>
#include <iterator>
#include <thread>

#include <mpi.h>

namespace syncbn::testing {
namespace {

// One thread calls MPI in these programs.
Plan plan;
int calls = 0;
void (*announce_misdeed)(const std::string&) = nullptr;

const char* name_of(Misdeed misdeed) {
  switch (misdeed) {
    case Misdeed::none:
      return "nothing";
    case Misdeed::delay:
      return "delay";
    case Misdeed::error:
      return "error";
    case Misdeed::stop:
      return "stop";
    case Misdeed::never:
      return "never";
  }
  return "unknown";
}

/// Takes the plan, for good.
Misdeed commit(const char* function) {
  const Misdeed misdeed = plan.misdeed;
  plan.misdeed = Misdeed::none;
  if (announce_misdeed != nullptr) {
    announce_misdeed(std::string(name_of(misdeed)) + " at " + function + ", collective call " + std::to_string(calls) +
                     (misdeed == Misdeed::delay ? ", " + std::to_string(plan.seconds) + " s" : ""));
  }
  if (misdeed == Misdeed::delay) std::this_thread::sleep_for(std::chrono::duration<double>(plan.seconds));
  if (misdeed == Misdeed::stop) std::raise(SIGSTOP);
  return misdeed;
}

int query(void*, MPI_Status*) { return MPI_SUCCESS; }
int free_nothing(void*) { return MPI_SUCCESS; }
int cancel(void*, int) { return MPI_SUCCESS; }

/// A request that is never done.
int never(MPI_Request* request) { return MPI_Grequest_start(query, free_nothing, cancel, nullptr, request); }

template <class Call>
int start(const char* function, MPI_Request* request, const Call& call) {
  ++calls;
  if (plan.misdeed == Misdeed::none || plan.where != Where::start || calls < plan.call) return call();
  switch (commit(function)) {
    case Misdeed::error:
      return MPI_ERR_OTHER;
    case Misdeed::never:
      return never(request);
    default:
      return call();
  }
}

template <class Call>
int look(Where where, const char* function, const Call& call) {
  if (plan.misdeed == Misdeed::none || plan.where != where || calls < plan.call) return call();
  return commit(function) == Misdeed::error ? MPI_ERR_OTHER : call();
}

/// SplitMix64 (Steele, Lea & Flood 2014).
std::uint64_t next(std::uint64_t& state) {
  state += 0x9e3779b97f4a7c15U;
  std::uint64_t z = state;
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

double uniform(std::uint64_t& state) { return static_cast<double>(next(state) >> 11U) * 0x1p-53; }

}  // namespace

Plan plan_from(std::uint64_t seed, int ranks, int most_calls, double deadline_seconds) {
  std::uint64_t state = seed;
  Plan result;
  result.rank = static_cast<int>(next(state) % static_cast<std::uint64_t>(ranks));
  result.call = 1 + static_cast<int>(next(state) % static_cast<std::uint64_t>(most_calls));
  constexpr Misdeed kStartMisdeeds[] = {Misdeed::delay, Misdeed::error, Misdeed::stop, Misdeed::never};
  constexpr Misdeed kOtherMisdeeds[] = {Misdeed::delay, Misdeed::error, Misdeed::stop};
  constexpr Where kPlaces[] = {Where::start, Where::start, Where::test, Where::probe};
  result.where = kPlaces[next(state) % std::size(kPlaces)];
  result.misdeed = result.where == Where::start ? kStartMisdeeds[next(state) % std::size(kStartMisdeeds)]
                                                : kOtherMisdeeds[next(state) % std::size(kOtherMisdeeds)];
  switch (next(state) % 3) {
    case 0:
      result.seconds = 0.2 * deadline_seconds * uniform(state);
      break;
    case 1:
      result.seconds = (0.8 + 0.8 * uniform(state)) * deadline_seconds;
      break;
    default:
      result.seconds = 2.0 * deadline_seconds + 1.0 + uniform(state);
  }
  return result;
}

void misbehave(const Plan& new_plan, void (*announce)(const std::string& words)) {
  plan = new_plan;
  calls = 0;
  announce_misdeed = announce;
}

int collective_calls() { return calls; }

}  // namespace syncbn::testing

using syncbn::testing::look;
using syncbn::testing::start;
using syncbn::testing::Where;

extern "C" int MPI_Iallreduce(const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm,
                              MPI_Request* request) {
  return start("MPI_Iallreduce", request, [&] { return PMPI_Iallreduce(in, out, count, type, op, comm, request); });
}

extern "C" int MPI_Iallgather(const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count,
                              MPI_Datatype out_type, MPI_Comm comm, MPI_Request* request) {
  return start("MPI_Iallgather", request,
               [&] { return PMPI_Iallgather(in, in_count, in_type, out, out_count, out_type, comm, request); });
}

extern "C" int MPI_Ibcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm comm, MPI_Request* request) {
  return start("MPI_Ibcast", request, [&] { return PMPI_Ibcast(data, count, type, root, comm, request); });
}

extern "C" int MPI_Comm_idup(MPI_Comm comm, MPI_Comm* result, MPI_Request* request) {
  return start("MPI_Comm_idup", request, [&] { return PMPI_Comm_idup(comm, result, request); });
}

extern "C" int MPI_Test(MPI_Request* request, int* done, MPI_Status* status) {
  return look(Where::test, "MPI_Test", [&] { return PMPI_Test(request, done, status); });
}

extern "C" int MPI_Improbe(int source, int tag, MPI_Comm comm, int* found, MPI_Message* message, MPI_Status* status) {
  return look(Where::probe, "MPI_Improbe", [&] { return PMPI_Improbe(source, tag, comm, found, message, status); });
}
