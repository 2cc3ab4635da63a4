// SPDX-License-Identifier: MIT
// What Python holds: a group of processes, a layer, and what a forward pass left for its backward pass.
#pragma once

#include <cstdint>
#include <string>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/custom_class.h>
#include <torch/torch.h>

#include "syncbn/syncbn.h"
#include "torch/shared_memory.hpp"

namespace syncbn_torch {

/// Throws the library's sentence unless all is well: ValueError for tensors and options, else RuntimeError.
void check(syncbn_status status);

/// Processes that share their statistics.
class Group : public torch::CustomClassHolder {
 public:
  /// The processes of a torch.distributed group (gloo, mpi: whatever gathers CPU tensors), which Python must keep. Those of one
  /// host exchange through shared memory, where `deadline` holds for a message; else the group's own does. Collective.
  Group(const c10::intrusive_ptr<c10d::ProcessGroup>& processes, double deadline_seconds);
  /// Any processes, by an all-gather of theirs (a syncbn_all_gather and its context, which Python must keep). Collective.
  Group(int64_t rank, int64_t size, int64_t all_gather, int64_t context, double deadline_seconds);
  /// An MPI communicator as a Fortran integer (mpi4py: comm.py2f()). Collective.
  explicit Group(int64_t fortran_communicator);
  /// This process alone.
  Group();
  ~Group() override;

  syncbn_communicator* get() const { return communicator_; }
  int64_t rank() const { return syncbn_communicator_rank(communicator_); }
  int64_t size() const { return syncbn_communicator_size(communicator_); }
  /// Whether messages go through SharedMemory.
  bool shares_memory() const { return shared_memory_ != nullptr; }

 private:
  void open(int32_t rank, int32_t size, double deadline_seconds);
  static int32_t all_gather(void* self, const void* mine, size_t bytes, void* all);
  void gather_by_processes(const void* mine, size_t bytes, void* all) const;

  /// Python owns it, and lets go of its lock when it destroys one: the group's threads may need the lock to end.
  c10::weak_intrusive_ptr<c10d::ProcessGroup> processes_{c10::intrusive_ptr<c10d::ProcessGroup>()};
  SharedMemory::Gather gather_;  ///< A message of the processes.
  std::unique_ptr<SharedMemory> shared_memory_;
  syncbn_communicator* communicator_ = nullptr;
};

/// What a layer is made with, and cannot change.
struct LayerOptions {
  int64_t num_features = 0;
  double eps = 1e-5;
  c10::optional<double> momentum = 0.1;
  bool affine = true;
  bool track_running_stats = true;
  bool is_double = false;
  std::string name = "bn";
};

struct Layer {
  Layer(c10::intrusive_ptr<Group> group, const LayerOptions& options);
  ~Layer() { syncbn_layer_destroy(layer); }
  Layer(const Layer&) = delete;
  Layer& operator=(const Layer&) = delete;
  at::ScalarType parameter_type() const { return options.is_double ? at::kDouble : at::kFloat; }

  static constexpr uint64_t kMagic = 0x73796e63626e4c31;
  c10::intrusive_ptr<Group> group;
  LayerOptions options;
  syncbn_layer* layer = nullptr;
};

/// Statistics of one forward pass.
struct Cache {
  Cache() { check(syncbn_cache_create(&cache)); }
  ~Cache() { syncbn_cache_destroy(cache); }
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  static constexpr uint64_t kMagic = 0x73796e63626e4331;
  syncbn_cache* cache = nullptr;
};

/// Layers and caches go through Python as tensors of bytes that own them: PyTorch hands those to an operator in a fraction of a
/// microsecond, and objects of TorchScript classes in ten.
template <class Object>
struct Handle {
  uint64_t magic = Object::kMagic;
  const Handle* self = this;  ///< A copy of the bytes is no handle.
  Object object;

  template <class... Arguments>
  explicit Handle(Arguments&&... arguments) : object(std::forward<Arguments>(arguments)...) {}
};

template <class Object, class... Arguments>
at::Tensor made(Arguments&&... arguments) {
  auto* handle = new Handle<Object>(std::forward<Arguments>(arguments)...);
  return at::from_blob(
      handle, {static_cast<int64_t>(sizeof *handle)}, [](void* p) { delete static_cast<Handle<Object>*>(p); },
      at::kByte);
}

template <class Object>
Object& object_of(const at::Tensor& tensor) {
  using Wanted = Handle<Object>;
  TORCH_CHECK_VALUE(tensor.device().is_cpu() && tensor.scalar_type() == at::kByte &&
                        tensor.numel() == static_cast<int64_t>(sizeof(Wanted)) &&
                        static_cast<Wanted*>(tensor.data_ptr())->magic == Object::kMagic &&
                        static_cast<Wanted*>(tensor.data_ptr())->self == tensor.data_ptr(),
                    "syncbn: a tensor that is no handle of a layer or cache");
  return static_cast<Wanted*>(tensor.data_ptr())->object;
}

}  // namespace syncbn_torch
