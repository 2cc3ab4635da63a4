// SPDX-License-Identifier: MIT
// One line a function: its name, parameters and arguments. The program's own MPI_X comes before the library's, and
// calls PMPI_X.
#include "support/collective_counter.hpp"

#include <array>
#include <atomic>
#include <stdexcept>

#include <mpi.h>

namespace syncbn::testing {
namespace {

enum class Kind { collective, communicator, point_to_point };

struct Entry {
  const char* name;
  Kind kind;
  std::atomic<std::int64_t> calls;
};

// Every counted function registers its entry before main(); the list is only read afterwards.
constexpr int kMaxEntries = 96;
Entry* entries[kMaxEntries];
int entry_count = 0;

struct Registered : Entry {
  Registered(const char* function, Kind function_kind) : Entry{function, function_kind, {0}} {
    entries[entry_count++] = this;
  }
};

std::int64_t total(Kind kind) {
  std::int64_t sum = 0;
  for (int i = 0; i < entry_count; ++i) {
    if (entries[i]->kind == kind) sum += entries[i]->calls;
  }
  return sum;
}

}  // namespace

void CollectiveCounter::reset() {
  for (int i = 0; i < entry_count; ++i) entries[i]->calls = 0;
}

std::int64_t CollectiveCounter::count(std::string_view function) {
  for (int i = 0; i < entry_count; ++i) {
    if (function == entries[i]->name) return entries[i]->calls;
  }
  throw std::invalid_argument("[CollectiveCounter] " + std::string(function) + " is not counted");
}

std::int64_t CollectiveCounter::total_collectives() { return total(Kind::collective); }
std::int64_t CollectiveCounter::total_communicator_calls() { return total(Kind::communicator); }
std::int64_t CollectiveCounter::total_point_to_point() { return total(Kind::point_to_point); }

std::string CollectiveCounter::summary() {
  std::string text;
  for (int i = 0; i < entry_count; ++i) {
    const std::int64_t calls = entries[i]->calls;
    if (calls != 0) text += (text.empty() ? "" : ", ") + std::string(entries[i]->name) + " " + std::to_string(calls);
  }
  return text.empty() ? "no MPI calls" : text;
}

}  // namespace syncbn::testing

using syncbn::testing::Kind;
using syncbn::testing::Registered;

#define SYNCBN_COUNT(kind, function, parameters, arguments)         \
  static Registered function##_entry("MPI_" #function, Kind::kind); \
  extern "C" int MPI_##function parameters {                        \
    ++function##_entry.calls;                                       \
    return PMPI_##function arguments;                               \
  }

SYNCBN_COUNT(collective, Allreduce, (const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm),
             (in, out, count, type, op, comm))
SYNCBN_COUNT(collective, Iallreduce,
             (const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm, MPI_Request* request),
             (in, out, count, type, op, comm, request))
SYNCBN_COUNT(collective, Reduce,
             (const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, int root, MPI_Comm comm),
             (in, out, count, type, op, root, comm))
SYNCBN_COUNT(collective, Ireduce,
             (const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, int root, MPI_Comm comm,
              MPI_Request* request),
             (in, out, count, type, op, root, comm, request))
SYNCBN_COUNT(collective, Scan, (const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm),
             (in, out, count, type, op, comm))
SYNCBN_COUNT(collective, Iscan,
             (const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm, MPI_Request* request),
             (in, out, count, type, op, comm, request))
SYNCBN_COUNT(collective, Exscan, (const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm),
             (in, out, count, type, op, comm))
SYNCBN_COUNT(collective, Iexscan,
             (const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm, MPI_Request* request),
             (in, out, count, type, op, comm, request))
SYNCBN_COUNT(collective, Reduce_scatter,
             (const void* in, void* out, const int* counts, MPI_Datatype type, MPI_Op op, MPI_Comm comm),
             (in, out, counts, type, op, comm))
SYNCBN_COUNT(collective, Ireduce_scatter,
             (const void* in, void* out, const int* counts, MPI_Datatype type, MPI_Op op, MPI_Comm comm,
              MPI_Request* request),
             (in, out, counts, type, op, comm, request))
SYNCBN_COUNT(collective, Reduce_scatter_block,
             (const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm),
             (in, out, count, type, op, comm))
SYNCBN_COUNT(collective, Ireduce_scatter_block,
             (const void* in, void* out, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm, MPI_Request* request),
             (in, out, count, type, op, comm, request))
SYNCBN_COUNT(collective, Bcast, (void* data, int count, MPI_Datatype type, int root, MPI_Comm comm),
             (data, count, type, root, comm))
SYNCBN_COUNT(collective, Ibcast,
             (void* data, int count, MPI_Datatype type, int root, MPI_Comm comm, MPI_Request* request),
             (data, count, type, root, comm, request))
SYNCBN_COUNT(collective, Barrier, (MPI_Comm comm), (comm))
SYNCBN_COUNT(collective, Ibarrier, (MPI_Comm comm, MPI_Request* request), (comm, request))
SYNCBN_COUNT(collective, Allgather,
             (const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count, MPI_Datatype out_type,
              MPI_Comm comm),
             (in, in_count, in_type, out, out_count, out_type, comm))
SYNCBN_COUNT(collective, Iallgather,
             (const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count, MPI_Datatype out_type,
              MPI_Comm comm, MPI_Request* request),
             (in, in_count, in_type, out, out_count, out_type, comm, request))
SYNCBN_COUNT(collective, Allgatherv,
             (const void* in, int in_count, MPI_Datatype in_type, void* out, const int* out_counts, const int* offsets,
              MPI_Datatype out_type, MPI_Comm comm),
             (in, in_count, in_type, out, out_counts, offsets, out_type, comm))
SYNCBN_COUNT(collective, Iallgatherv,
             (const void* in, int in_count, MPI_Datatype in_type, void* out, const int* out_counts, const int* offsets,
              MPI_Datatype out_type, MPI_Comm comm, MPI_Request* request),
             (in, in_count, in_type, out, out_counts, offsets, out_type, comm, request))
SYNCBN_COUNT(collective, Gather,
             (const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count, MPI_Datatype out_type,
              int root, MPI_Comm comm),
             (in, in_count, in_type, out, out_count, out_type, root, comm))
SYNCBN_COUNT(collective, Igather,
             (const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count, MPI_Datatype out_type,
              int root, MPI_Comm comm, MPI_Request* request),
             (in, in_count, in_type, out, out_count, out_type, root, comm, request))
SYNCBN_COUNT(collective, Gatherv,
             (const void* in, int in_count, MPI_Datatype in_type, void* out, const int* out_counts, const int* offsets,
              MPI_Datatype out_type, int root, MPI_Comm comm),
             (in, in_count, in_type, out, out_counts, offsets, out_type, root, comm))
SYNCBN_COUNT(collective, Igatherv,
             (const void* in, int in_count, MPI_Datatype in_type, void* out, const int* out_counts, const int* offsets,
              MPI_Datatype out_type, int root, MPI_Comm comm, MPI_Request* request),
             (in, in_count, in_type, out, out_counts, offsets, out_type, root, comm, request))
SYNCBN_COUNT(collective, Scatter,
             (const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count, MPI_Datatype out_type,
              int root, MPI_Comm comm),
             (in, in_count, in_type, out, out_count, out_type, root, comm))
SYNCBN_COUNT(collective, Iscatter,
             (const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count, MPI_Datatype out_type,
              int root, MPI_Comm comm, MPI_Request* request),
             (in, in_count, in_type, out, out_count, out_type, root, comm, request))
SYNCBN_COUNT(collective, Scatterv,
             (const void* in, const int* in_counts, const int* offsets, MPI_Datatype in_type, void* out, int out_count,
              MPI_Datatype out_type, int root, MPI_Comm comm),
             (in, in_counts, offsets, in_type, out, out_count, out_type, root, comm))
SYNCBN_COUNT(collective, Iscatterv,
             (const void* in, const int* in_counts, const int* offsets, MPI_Datatype in_type, void* out, int out_count,
              MPI_Datatype out_type, int root, MPI_Comm comm, MPI_Request* request),
             (in, in_counts, offsets, in_type, out, out_count, out_type, root, comm, request))
SYNCBN_COUNT(collective, Alltoall,
             (const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count, MPI_Datatype out_type,
              MPI_Comm comm),
             (in, in_count, in_type, out, out_count, out_type, comm))
SYNCBN_COUNT(collective, Ialltoall,
             (const void* in, int in_count, MPI_Datatype in_type, void* out, int out_count, MPI_Datatype out_type,
              MPI_Comm comm, MPI_Request* request),
             (in, in_count, in_type, out, out_count, out_type, comm, request))
SYNCBN_COUNT(collective, Alltoallv,
             (const void* in, const int* in_counts, const int* in_offsets, MPI_Datatype in_type, void* out,
              const int* out_counts, const int* out_offsets, MPI_Datatype out_type, MPI_Comm comm),
             (in, in_counts, in_offsets, in_type, out, out_counts, out_offsets, out_type, comm))
SYNCBN_COUNT(collective, Ialltoallv,
             (const void* in, const int* in_counts, const int* in_offsets, MPI_Datatype in_type, void* out,
              const int* out_counts, const int* out_offsets, MPI_Datatype out_type, MPI_Comm comm,
              MPI_Request* request),
             (in, in_counts, in_offsets, in_type, out, out_counts, out_offsets, out_type, comm, request))
SYNCBN_COUNT(collective, Alltoallw,
             (const void* in, const int* in_counts, const int* in_offsets, const MPI_Datatype* in_types, void* out,
              const int* out_counts, const int* out_offsets, const MPI_Datatype* out_types, MPI_Comm comm),
             (in, in_counts, in_offsets, in_types, out, out_counts, out_offsets, out_types, comm))
SYNCBN_COUNT(collective, Ialltoallw,
             (const void* in, const int* in_counts, const int* in_offsets, const MPI_Datatype* in_types, void* out,
              const int* out_counts, const int* out_offsets, const MPI_Datatype* out_types, MPI_Comm comm,
              MPI_Request* request),
             (in, in_counts, in_offsets, in_types, out, out_counts, out_offsets, out_types, comm, request))

SYNCBN_COUNT(communicator, Comm_dup, (MPI_Comm comm, MPI_Comm* made), (comm, made))
SYNCBN_COUNT(communicator, Comm_idup, (MPI_Comm comm, MPI_Comm* made, MPI_Request* request), (comm, made, request))
SYNCBN_COUNT(communicator, Comm_dup_with_info, (MPI_Comm comm, MPI_Info info, MPI_Comm* made), (comm, info, made))
SYNCBN_COUNT(communicator, Comm_split, (MPI_Comm comm, int color, int key, MPI_Comm* made), (comm, color, key, made))
SYNCBN_COUNT(communicator, Comm_split_type, (MPI_Comm comm, int split_type, int key, MPI_Info info, MPI_Comm* made),
             (comm, split_type, key, info, made))
SYNCBN_COUNT(communicator, Comm_create, (MPI_Comm comm, MPI_Group group, MPI_Comm* made), (comm, group, made))
SYNCBN_COUNT(communicator, Comm_create_group, (MPI_Comm comm, MPI_Group group, int tag, MPI_Comm* made),
             (comm, group, tag, made))

SYNCBN_COUNT(point_to_point, Send, (const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm),
             (data, count, type, to, tag, comm))
SYNCBN_COUNT(point_to_point, Ssend, (const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm),
             (data, count, type, to, tag, comm))
SYNCBN_COUNT(point_to_point, Bsend, (const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm),
             (data, count, type, to, tag, comm))
SYNCBN_COUNT(point_to_point, Rsend, (const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm),
             (data, count, type, to, tag, comm))
SYNCBN_COUNT(point_to_point, Isend,
             (const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request* request),
             (data, count, type, to, tag, comm, request))
SYNCBN_COUNT(point_to_point, Issend,
             (const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request* request),
             (data, count, type, to, tag, comm, request))
SYNCBN_COUNT(point_to_point, Ibsend,
             (const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request* request),
             (data, count, type, to, tag, comm, request))
SYNCBN_COUNT(point_to_point, Irsend,
             (const void* data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request* request),
             (data, count, type, to, tag, comm, request))
SYNCBN_COUNT(point_to_point, Sendrecv,
             (const void* in, int in_count, MPI_Datatype in_type, int to, int in_tag, void* out, int out_count,
              MPI_Datatype out_type, int from, int out_tag, MPI_Comm comm, MPI_Status* status),
             (in, in_count, in_type, to, in_tag, out, out_count, out_type, from, out_tag, comm, status))
SYNCBN_COUNT(point_to_point, Sendrecv_replace,
             (void* data, int count, MPI_Datatype type, int to, int to_tag, int from, int from_tag, MPI_Comm comm,
              MPI_Status* status),
             (data, count, type, to, to_tag, from, from_tag, comm, status))
SYNCBN_COUNT(point_to_point, Start, (MPI_Request * request), (request))
SYNCBN_COUNT(point_to_point, Startall, (int count, MPI_Request* requests), (count, requests))
SYNCBN_COUNT(point_to_point, Put,
             (const void* data, int count, MPI_Datatype type, int target, MPI_Aint offset, int target_count,
              MPI_Datatype target_type, MPI_Win window),
             (data, count, type, target, offset, target_count, target_type, window))
SYNCBN_COUNT(point_to_point, Get,
             (void* data, int count, MPI_Datatype type, int target, MPI_Aint offset, int target_count,
              MPI_Datatype target_type, MPI_Win window),
             (data, count, type, target, offset, target_count, target_type, window))
SYNCBN_COUNT(point_to_point, Accumulate,
             (const void* data, int count, MPI_Datatype type, int target, MPI_Aint offset, int target_count,
              MPI_Datatype target_type, MPI_Op op, MPI_Win window),
             (data, count, type, target, offset, target_count, target_type, op, window))
