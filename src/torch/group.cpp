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

Group::Group(int64_t rank, int64_t size, int64_t all_gather, int64_t context) {
  check(syncbn_communicator_from_callback(static_cast<int32_t>(rank), static_cast<int32_t>(size),
                                          reinterpret_cast<syncbn_all_gather>(all_gather),
                                          reinterpret_cast<void*>(context), nullptr, &communicator_));
}

Group::Group(const c10::intrusive_ptr<c10d::ProcessGroup>& processes) : processes_(processes) {
  check(syncbn_communicator_from_callback(processes->getRank(), processes->getSize(), all_gather, this, nullptr,
                                          &communicator_));
}

Group::~Group() { syncbn_communicator_destroy(communicator_); }

/// One collective of the process group, over the caller's bytes: tensors are only views of them.
int32_t Group::all_gather(void* self, const void* mine, size_t bytes, void* all) {
  try {
    const c10::intrusive_ptr<c10d::ProcessGroup> processes = static_cast<Group*>(self)->processes_.lock();
    TORCH_CHECK(processes.defined(), "the process group is gone");
    const auto options = at::TensorOptions().dtype(at::kByte);
    const auto length = static_cast<int64_t>(bytes);
    std::vector<at::Tensor> input = {at::from_blob(const_cast<void*>(mine), {length}, options)};
    std::vector<std::vector<at::Tensor>> outputs(1);
    for (int rank = 0; rank < processes->getSize(); ++rank) {
      outputs[0].push_back(
          at::from_blob(static_cast<char*>(all) + static_cast<size_t>(rank) * bytes, {length}, options));
    }
    processes->allgather(outputs, input)->wait();
    return 0;
  } catch (const std::exception& error) {
    gather_failure = error.what();
    return 1;
  }
}

}  // namespace syncbn_torch
