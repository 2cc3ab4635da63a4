// SPDX-License-Identifier: MIT
// The operators' registration: torch.ops.syncbn and torch.classes.syncbn.
#include <torch/csrc/autograd/graph_task.h>
#include <torch/library.h>

#include "torch/batch_norm.hpp"

namespace syncbn_torch {
namespace {

c10::intrusive_ptr<Group> group_alone() { return c10::make_intrusive<Group>(); }
c10::intrusive_ptr<Group> group_of_mpi(int64_t fortran_communicator) {
  return c10::make_intrusive<Group>(fortran_communicator);
}
c10::intrusive_ptr<Group> group_of_processes(const c10::intrusive_ptr<c10d::ProcessGroup>& processes,
                                             double deadline_seconds) {
  return c10::make_intrusive<Group>(processes, deadline_seconds);
}
c10::intrusive_ptr<Group> group_of_callback(int64_t rank, int64_t size, int64_t all_gather, int64_t context,
                                            double deadline_seconds) {
  return c10::make_intrusive<Group>(rank, size, all_gather, context, deadline_seconds);
}

at::Tensor layer(c10::intrusive_ptr<Group> group, int64_t num_features, double eps, c10::optional<double> momentum,
                 bool affine, bool track_running_stats, bool is_double, std::string name) {
  return made<Layer>(std::move(group), LayerOptions{num_features, eps, momentum, affine, track_running_stats, is_double,
                                                    std::move(name)});
}

at::Tensor cache() { return made<Cache>(); }

/// What torch._C._current_graph_task_id() says from PyTorch 2.0 on: this thread is in a backward pass.
bool is_in_backward() { return torch::autograd::get_current_graph_task_nodes_in_graph() != nullptr; }

}  // namespace

TORCH_LIBRARY(syncbn, library) {
  library.class_<Group>("Group")
      .def("rank", &Group::rank)
      .def("size", &Group::size)
      .def("shares_memory", &Group::shares_memory);

  library.def("group_alone() -> __torch__.torch.classes.syncbn.Group", &group_alone);
  library.def("group_of_mpi(int fortran_communicator) -> __torch__.torch.classes.syncbn.Group", &group_of_mpi);
  library.def(
      "group_of_processes(__torch__.torch.classes.c10d.ProcessGroup processes, float deadline_seconds) -> "
      "__torch__.torch.classes.syncbn.Group",
      &group_of_processes);
  library.def(
      "group_of_callback(int rank, int size, int all_gather, int context, float deadline_seconds) -> "
      "__torch__.torch.classes.syncbn.Group",
      &group_of_callback);
  library.def(
      "layer(__torch__.torch.classes.syncbn.Group group, int num_features, float eps, float? momentum, bool affine, "
      "bool track_running_stats, bool is_double, str name) -> Tensor",
      &layer);
  library.def(
      "normalize(Tensor layer, Tensor cache, Tensor x, Tensor? weight, Tensor? bias, Tensor(a!)? running_mean, "
      "Tensor(b!)? running_var, Tensor(c!)? num_batches_tracked, int kind) -> Tensor");
  library.def(
      "backward(Tensor layer, Tensor cache, Tensor x, Tensor dy, Tensor? weight, bool wants_dx, bool wants_parameters) "
      "-> "
      "(Tensor, Tensor, Tensor)");
  library.def("cache() -> Tensor", &cache);
  library.def("is_in_backward() -> bool", &is_in_backward);
  library.def("statistics(Tensor cache, int which) -> Tensor");
  library.def("count(Tensor cache) -> int");
  library.def("fingerprint(Tensor x) -> int");
}

TORCH_LIBRARY_IMPL(syncbn, CPU, library) {
  library.impl("normalize", &normalize);
  library.impl("backward", &backward);
  library.impl("statistics", &statistics);
  library.impl("count", &count);
  library.impl("fingerprint", &fingerprint);
}

TORCH_LIBRARY_IMPL(syncbn, AutogradCPU, library) { library.impl("normalize", &normalize_with_gradient); }

}  // namespace syncbn_torch
