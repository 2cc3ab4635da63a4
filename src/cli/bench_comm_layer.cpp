// SPDX-License-Identifier: MIT
#include "bench_comm_layer.hpp"

#include "agree.hpp"
#include "element_type.hpp"

namespace syncbn::cli::bench {
namespace {

constexpr Index kTinyRows = 2;

BatchNormOptions layer_options(const Options& options, Index channels) {
  BatchNormOptions layer;
  layer.num_features = channels;
  layer.parameter_type = parameter_type_for(options.dtype);
  layer.reduction = options.reductions.front();
  layer.threads = options.threads;
  layer.name = "bench";
  return layer;
}

}  // namespace

Groups::Groups(MPI_Comm comm) {
  if (size_of(comm) == 1) return;
  for (const Exchange exchange : {Exchange::all_reduce, Exchange::all_gather, Exchange::automatic}) {
    CommunicatorOptions options;
    options.exchange = exchange;
    groups.emplace_back(exchange, Communicator(comm, options));
  }
}

Batch tiny_batch(const Options& options, Index channels, MPI_Comm comm) {
  return {{kTinyRows * size_of(comm), channels}, Layout::channels_first, options.dtype, Fused(), comm};
}

TinyLayer::TinyLayer(const Options& options, const Communicator& communicator, Batch& batch)
    : layer_(layer_options(options, batch.shape().channels), communicator), batch_(&batch) {}

void TinyLayer::begin(Pass pass) {
  if (pass == Pass::forward) {
    layer_.begin_forward_train(batch_->x(), batch_->y(), cache_);
  } else {
    layer_.begin_backward(cache_, batch_->dy(), batch_->dx(), gradients_);
  }
}

void TinyLayer::finish(Pass pass) {
  if (pass == Pass::forward) {
    layer_.finish_forward_train();
  } else {
    layer_.finish_backward();
  }
}

}  // namespace syncbn::cli::bench
