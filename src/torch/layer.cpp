// SPDX-License-Identifier: MIT
#include "torch/handles.hpp"

namespace syncbn_torch {

Layer::Layer(c10::intrusive_ptr<Group> in, const LayerOptions& made_with) : group(std::move(in)), options(made_with) {
  syncbn_layer_options from;
  syncbn_layer_options_init(&from, sizeof from);
  from.num_features = made_with.num_features;
  from.eps = made_with.eps;
  from.momentum = made_with.momentum.value_or(0.0);
  from.cumulative_average = made_with.momentum.has_value() ? 0 : 1;
  from.affine = made_with.affine;
  from.track_running_stats = made_with.track_running_stats;
  from.parameter_type = made_with.is_double ? SYNCBN_F64 : SYNCBN_F32;
  from.parameter_gradients = SYNCBN_GRADIENTS_LOCAL;  // DDP and its kin reduce gradients themselves
  from.threads = at::get_num_threads();
  from.name = made_with.name.c_str();
  check(syncbn_layer_create(&from, group->get(), &layer));
}

}  // namespace syncbn_torch
