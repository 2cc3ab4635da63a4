// SPDX-License-Identifier: MIT
#include "comm/mpi_transport.hpp"

#include <climits>
#include <string>

#include <sched.h>

#include "syncbn/error.hpp"

namespace syncbn::comm {
namespace {

void check(int code, const char* function) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw MpiError(std::string("[") + function + "] " + std::string(text, static_cast<std::size_t>(length)));
}

void check_mpi_is_running() {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  if (!initialized)
    throw MpiError(
        "[Communicator] MPI is not initialized: call MPI_Init "
        "before making a Communicator");
  if (finalized) throw MpiError("[Communicator] MPI is finalized: no messages are possible any more");
}

bool mpi_is_finalized() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  return finalized != 0;
}

int checked_count(std::size_t bytes) {
  if (bytes > static_cast<std::size_t>(INT_MAX)) {
    throw MpiError("[MpiTransport] a message of " + std::to_string(bytes) +
                   " bytes is more than MPI can count (2^31-1)");
  }
  return static_cast<int>(bytes);
}

/// The key under which a message type carries its Merge: the only road by which MPI's operation can learn which one to
/// run (its arguments are two buffers and the type; a pointer inside the message would be another process's).
int merge_key() {
  static const int key = [] {
    int made = MPI_KEYVAL_INVALID;
    check(MPI_Type_create_keyval(MPI_TYPE_NULL_COPY_FN, MPI_TYPE_NULL_DELETE_FN, &made, nullptr),
          "MPI_Type_create_keyval");
    return made;
  }();
  return key;
}

/// What the key's value points to.
struct MergeEntry {
  Merge merge;
  std::size_t bytes;
};

extern "C" void merge_messages(void* in, void* inout, int* length, MPI_Datatype* type) {
  void* value = nullptr;
  int found = 0;
  MPI_Type_get_attr(*type, merge_key(), &value, &found);
  const auto& entry = *static_cast<const MergeEntry*>(value);
  for (int i = 0; i < *length; ++i) {
    const std::size_t offset = static_cast<std::size_t>(i) * entry.bytes;
    entry.merge(static_cast<const std::byte*>(in) + offset, static_cast<std::byte*>(inout) + offset, entry.bytes);
  }
}

}  // namespace

std::unique_ptr<Transport> MpiTransport::duplicate_of(MPI_Comm comm) {
  check_mpi_is_running();
  if (comm == MPI_COMM_NULL) throw MpiError("[Communicator] the communicator is MPI_COMM_NULL");
  std::unique_ptr<MpiTransport> transport(new MpiTransport);
  check(MPI_Comm_dup(comm, &transport->comm_), "MPI_Comm_dup");
  check(MPI_Comm_set_errhandler(transport->comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check(MPI_Comm_rank(transport->comm_, &transport->rank_), "MPI_Comm_rank");
  check(MPI_Comm_size(transport->comm_, &transport->size_), "MPI_Comm_size");
  check(MPI_Op_create(merge_messages, /*commute=*/1, &transport->operation_), "MPI_Op_create");
  return transport;
}

MpiTransport::~MpiTransport() {
  if (mpi_is_finalized()) return;
  for (MessageType& known : message_types_) {
    void* value = nullptr;
    int found = 0;
    MPI_Type_get_attr(known.type, merge_key(), &value, &found);
    MPI_Type_free(&known.type);
    if (found) delete static_cast<MergeEntry*>(value);
  }
  if (operation_ != MPI_OP_NULL) MPI_Op_free(&operation_);
  if (comm_ != MPI_COMM_NULL) MPI_Comm_free(&comm_);
}

std::unique_ptr<Transport> MpiTransport::duplicate() const { return duplicate_of(comm_); }

MPI_Datatype MpiTransport::message_type(std::size_t bytes, Merge merge) {
  for (const MessageType& known : message_types_) {
    if (known.bytes == bytes && known.merge == merge) return known.type;
  }
  MPI_Datatype type = MPI_DATATYPE_NULL;
  check(MPI_Type_contiguous(checked_count(bytes), MPI_BYTE, &type), "MPI_Type_contiguous");
  check(MPI_Type_commit(&type), "MPI_Type_commit");
  auto entry = std::make_unique<MergeEntry>(MergeEntry{merge, bytes});
  message_types_.push_back({bytes, merge, type});  // owns the type from here on
  check(MPI_Type_set_attr(type, merge_key(), entry.get()), "MPI_Type_set_attr");
  entry.release();  // owned by the type's attribute
  return type;
}

void MpiTransport::all_reduce(std::byte* message, std::size_t bytes, Merge merge) {
  check_mpi_is_running();
  const MPI_Datatype type = message_type(bytes, merge);
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Iallreduce(MPI_IN_PLACE, message, 1, type, operation_, comm_, &request), "MPI_Iallreduce");
  wait(request);
}

/// Gives the processor away after some misses: with more ranks than cores a rank that spins keeps the one that it waits
/// for from running (MPICH never yields by itself: 8 ms for a message that then takes 0.1 ms).
void MpiTransport::wait(MPI_Request& request) {
  constexpr int kMissesBeforeYield = 20;
  int done = 0;
  for (int misses = 0; !done; ++misses) {
    check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
    if (!done && misses >= kMissesBeforeYield) sched_yield();
  }
}

void MpiTransport::all_gather(const std::byte* mine, std::size_t bytes, std::byte* all) {
  check_mpi_is_running();
  const int count = checked_count(bytes);
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Iallgather(mine, count, MPI_BYTE, all, count, MPI_BYTE, comm_, &request), "MPI_Iallgather");
  wait(request);
}

void MpiTransport::broadcast(std::byte* data, std::size_t bytes, int root) {
  check_mpi_is_running();
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Ibcast(data, checked_count(bytes), MPI_BYTE, root, comm_, &request), "MPI_Ibcast");
  wait(request);
}

}  // namespace syncbn::comm
