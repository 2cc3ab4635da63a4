// SPDX-License-Identifier: MIT
#include <utility>

#include "torch/handles.hpp"

namespace syncbn_torch {

namespace {

/// Of the last all-gather of this thread, which the library can only say the number of.
thread_local std::string gather_failure;

}  // namespace

void check(syncbn_status status) {
  if (status == SYNCBN_OK) return;
  const std::string why = std::exchange(gather_failure, std::string());
  const bool is_argument =
      status == SYNCBN_ERROR_SHAPE || status == SYNCBN_ERROR_OPTION || status == SYNCBN_ERROR_ARGUMENT;
  TORCH_CHECK_VALUE(!is_argument, syncbn_last_error());
  TORCH_CHECK(false, syncbn_last_error(), why.empty() ? "" : "; the process group says: ", why);
}

Group::Group() { check(syncbn_communicator_self(&communicator_)); }

Group::Group(int64_t fortran_communicator) {
  check(syncbn_communicator_create(static_cast<int32_t>(fortran_communicator), nullptr, &communicator_));
}

Group::Group(int64_t rank, int64_t size, int64_t all_gather, int64_t context, double deadline_seconds) {
  gather_ = [call = reinterpret_cast<syncbn_all_gather>(all_gather), own = reinterpret_cast<void*>(context)](
                const void* mine, size_t bytes, void* all) {
    TORCH_CHECK(call(own, mine, bytes, all) == 0, "its all-gather failed");
  };
  open(static_cast<int32_t>(rank), static_cast<int32_t>(size), deadline_seconds);
}

Group::Group(const c10::intrusive_ptr<c10d::ProcessGroup>& processes, double deadline_seconds) : processes_(processes) {
  gather_ = [this](const void* mine, size_t bytes, void* all) { gather_by_processes(mine, bytes, all); };
  open(processes->getRank(), processes->getSize(), deadline_seconds);
}

Group::~Group() { syncbn_communicator_destroy(communicator_); }

void Group::open(int32_t rank, int32_t size, double deadline_seconds) {
  deadline_ = std::chrono::duration<double>(deadline_seconds);
  try {
    shared_memory_ = SharedMemory::open(rank, size, gather_);
  } catch (const std::exception& error) {
    TORCH_CHECK(false, "[Communicator] the processes could not meet; the process group says: ", error.what());
  }
  check(syncbn_communicator_from_callback(rank, size, all_gather, this, nullptr, &communicator_));
}

int32_t Group::all_gather(void* self, const void* mine, size_t bytes, void* all) {
  try {
    const Group& group = *static_cast<Group*>(self);
    if (group.shared_memory_ != nullptr) {
      group.shared_memory_->all_gather(mine, bytes, all, group.deadline_);
    } else {
      group.gather_(mine, bytes, all);
    }
    return 0;
  } catch (const std::exception& error) {
    gather_failure = error.what();
    return 1;
  }
}

/// One collective of the process group, over the caller's bytes: tensors are only views of them.
void Group::gather_by_processes(const void* mine, size_t bytes, void* all) const {
  const c10::intrusive_ptr<c10d::ProcessGroup> processes = processes_.lock();
  TORCH_CHECK(processes.defined(), "the process group is gone");
  const auto options = at::TensorOptions().dtype(at::kByte);
  const auto length = static_cast<int64_t>(bytes);
  std::vector<at::Tensor> input = {at::from_blob(const_cast<void*>(mine), {length}, options)};
  std::vector<std::vector<at::Tensor>> outputs(1);
  for (int rank = 0; rank < processes->getSize(); ++rank) {
    outputs[0].push_back(at::from_blob(static_cast<char*>(all) + static_cast<size_t>(rank) * bytes, {length}, options));
  }
  processes->allgather(outputs, input)->wait();
}

}  // namespace syncbn_torch
