// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "torch/handles.hpp"

namespace syncbn_torch {

namespace {

/// What all-gathers of this process have failed of. The library can only say the number that one has returned, then and
/// whenever somebody calls the group again: a failure's number is its place here, from 1 on.
class Failures {
 public:
  int32_t add(const std::string& why) {
    const std::lock_guard<std::mutex> lock(mutex_);
    all_.push_back(why);
    return static_cast<int32_t>(all_.size());
  }
  /// The library's sentence with the reason in place of the number.
  std::string explained(std::string sentence) {
    static const std::string kNumbered = "the all-gather that the program gave failed: it returned ";
    const size_t at = sentence.find(kNumbered);
    if (at == std::string::npos) return sentence;
    const size_t digits = at + kNumbered.size();
    const size_t end = sentence.find_first_not_of("0123456789", digits);
    const size_t number = std::strtoul(sentence.c_str() + digits, nullptr, 10);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (number < 1 || number > all_.size()) return sentence;
    return sentence.replace(at, std::min(end, sentence.size()) - at,
                            "the processes' exchange failed: " + all_[number - 1]);
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> all_;
};
Failures failures;

}  // namespace

void check(syncbn_status status) {
  if (status == SYNCBN_OK) return;
  const bool is_argument =
      status == SYNCBN_ERROR_SHAPE || status == SYNCBN_ERROR_OPTION || status == SYNCBN_ERROR_ARGUMENT;
  TORCH_CHECK_VALUE(!is_argument, syncbn_last_error());
  TORCH_CHECK(false, failures.explained(syncbn_last_error()));
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
  try {
    shared_memory_ = SharedMemory::open(rank, size, gather_, std::chrono::duration<double>(deadline_seconds));
  } catch (const std::exception& error) {
    TORCH_CHECK(false, "[Communicator] the processes could not meet: ", error.what());
  }
  check(syncbn_communicator_from_callback(rank, size, all_gather, this, nullptr, &communicator_));
}

int32_t Group::all_gather(void* self, const void* mine, size_t bytes, void* all) {
  try {
    const Group& group = *static_cast<Group*>(self);
    if (group.shared_memory_ != nullptr) {
      group.shared_memory_->all_gather(mine, bytes, all);
    } else {
      group.gather_(mine, bytes, all);
    }
    return 0;
  } catch (const std::exception& error) {
    return failures.add(error.what());
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
