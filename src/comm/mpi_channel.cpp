// SPDX-License-Identifier: MIT
#include "comm/mpi_channel.hpp"

#include <climits>
#include <cstring>
#include <string>
#include <utility>

#include "comm/keep.hpp"
#include "comm/mpi_error.hpp"
#include "syncbn/error.hpp"

namespace syncbn::comm {
namespace {

int checked_count(std::size_t bytes) {
  if (bytes > static_cast<std::size_t>(INT_MAX)) {
    throw MpiError("[MpiChannel] a message of " + std::to_string(bytes) + " bytes is more than MPI can count (2^31-1)");
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

MpiChannel::MpiChannel(MPI_Comm parent, int rank, int size) : rank_(rank), size_(size) {
  check(MPI_Comm_idup(parent, &comm_, &request_), "MPI_Comm_idup");
}

MpiChannel::~MpiChannel() {
  if (request_ != MPI_REQUEST_NULL || is_given_up_) {
    keep_for_ever(std::move(gathered_));
    return;
  }
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

MPI_Datatype MpiChannel::message_type(std::size_t bytes, Merge merge) {
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

/// A function of what all ranks share, and of nothing else. Two ranks: the all-gather took 0.58 to 0.86 of the all-reduce's
/// time at 64 to 2048 channels, in shared memory. More: about the same while all messages together have some 64 KiB, and
/// 1.2 to 1.6 above (three ranks on two cores); but between hosts its one step wins up to twice that size.
bool MpiChannel::uses_all_gather(std::size_t bytes, Exchange exchange) const {
  if (exchange != Exchange::automatic) return exchange == Exchange::all_gather;
  const std::size_t most = std::size_t{1} << (size_ == 2 ? 20 : 17);
  return bytes * static_cast<std::size_t>(size_) <= most;
}

void MpiChannel::start_merge(std::byte* message, std::size_t bytes, Merge merge, Exchange exchange) {
  check_mpi_is_running();
  if (!uses_all_gather(bytes, exchange)) {
    if (operation_ == MPI_OP_NULL) check(MPI_Op_create(merge_messages, /*commute=*/1, &operation_), "MPI_Op_create");
    const MPI_Datatype type = message_type(bytes, merge);
    check(MPI_Iallreduce(MPI_IN_PLACE, message, 1, type, operation_, comm_, &request_), "MPI_Iallreduce");
    return;
  }
  const int count = checked_count(bytes);
  gathered_.resize((bytes * static_cast<std::size_t>(size_) + 7) / 8);
  gather_ = {message, bytes, merge};
  check(MPI_Iallgather(message, count, MPI_BYTE, gathered_.data(), count, MPI_BYTE, comm_, &request_),
        "MPI_Iallgather");
}

void MpiChannel::start_broadcast(std::byte* data, std::size_t bytes, int root) {
  check_mpi_is_running();
  check(MPI_Ibcast(data, checked_count(bytes), MPI_BYTE, root, comm_, &request_), "MPI_Ibcast");
}

bool MpiChannel::test() {
  if (request_ == MPI_REQUEST_NULL) return true;
  check_mpi_is_running();  // else MPI ends the program
  int done = 0;
  check(MPI_Test(&request_, &done, MPI_STATUS_IGNORE), "MPI_Test");
  if (!done) return false;
  if (!is_open_) {
    is_open_ = true;
    check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  }
  if (gather_.message != nullptr) merge_gathered();
  return true;
}

/// In the order of ranks on every rank, because the last bits of fast sums depend on it. Ranks 0 and 1 begin with their own
/// message, which is there already: two messages merge to the same bytes either way.
void MpiChannel::merge_gathered() {
  const Gather gather = std::exchange(gather_, {});
  const auto* all = reinterpret_cast<const std::byte*>(gathered_.data());
  const bool has_first = rank_ <= 1;
  if (!has_first) std::memcpy(gather.message, all, gather.bytes);
  for (int rank = has_first ? 0 : 1; rank < size_; ++rank) {
    if (has_first && rank == rank_) continue;
    gather.merge(all + static_cast<std::size_t>(rank) * gather.bytes, gather.message, gather.bytes);
  }
}

}  // namespace syncbn::comm
