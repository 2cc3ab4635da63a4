// SPDX-License-Identifier: MIT
#include <cstring>
#include <string>

#include "capi/handles.hpp"
#include "capi/options.hpp"
#include "capi/status.hpp"

namespace syncbn::capi {
namespace {

void copy_from(const void* from, ChannelVector& to) {
  const auto bytes = static_cast<std::size_t>(to.size() * size_of(to.type()));
  to.type() == DataType::f64 ? std::memcpy(to.data<double>(), from, bytes) : std::memcpy(to.data<float>(), from, bytes);
}

void copy_to(const ChannelVector& from, void* to) {
  const auto bytes = static_cast<std::size_t>(from.size() * size_of(from.type()));
  from.type() == DataType::f64 ? std::memcpy(to, from.data<double>(), bytes)
                               : std::memcpy(to, from.data<float>(), bytes);
}

void* data_of(ChannelVector& vector) {
  if (vector.size() == 0) return nullptr;
  return vector.type() == DataType::f64 ? static_cast<void*>(vector.data<double>()) : vector.data<float>();
}

}  // namespace

ChannelVector& BoundLayer::state(std::int32_t which) {
  switch (which) {
    case SYNCBN_GAMMA:
      return layer.gamma();
    case SYNCBN_BETA:
      return layer.beta();
    case SYNCBN_RUNNING_MEAN:
      return layer.running_mean();
    case SYNCBN_RUNNING_VAR:
      return layer.running_var();
    default:
      throw ArgumentError("[syncbn_layer_state] which is " + std::to_string(which) +
                          ", wanted SYNCBN_GAMMA (0) to SYNCBN_RUNNING_VAR (3)");
  }
}

void BoundLayer::read_bound() {
  for (std::int32_t which = 0; which < 4; ++which) {
    const void* from = bound[static_cast<std::size_t>(which)];
    if (from != nullptr) copy_from(from, state(which));
  }
}

void BoundLayer::write_bound() {
  for (const std::int32_t which : {SYNCBN_RUNNING_MEAN, SYNCBN_RUNNING_VAR}) {
    void* to = bound[static_cast<std::size_t>(which)];
    if (to != nullptr) copy_to(state(which), to);
  }
}

namespace {

/// A call on a layer: with the caller's numbers, which it changes only if it ends well.
template <class Body>
syncbn_status on_layer(syncbn_layer* layer, const char* call, const Body& body) noexcept {
  return guarded([&] {
    want(layer, call, "layer");
    layer->bound.read_bound();
    body(layer->bound.layer);
    layer->bound.write_bound();
  });
}

/// Parameter gradients that have arrived, to where the caller wants them.
void hand_over_gradients(BoundLayer& bound) {
  if (bound.dgamma != nullptr && bound.gradients.dgamma.size() > 0) copy_to(bound.gradients.dgamma, bound.dgamma);
  if (bound.dbeta != nullptr && bound.gradients.dbeta.size() > 0) copy_to(bound.gradients.dbeta, bound.dbeta);
  bound.dgamma = bound.dbeta = nullptr;
}

/// What a null cache stands for: one that no forward pass has filled, an error that all ranks learn of.
const BatchNormCache& cache_of(const syncbn_cache* cache) {
  static const BatchNormCache none;
  return cache == nullptr ? none : cache->cache;
}

void begin_backward(syncbn_layer& layer, const syncbn_cache* cache, const syncbn_tensor* dy, const syncbn_tensor* dx,
                    const syncbn_tensor* dresidual, void* dgamma, void* dbeta) {
  BoundLayer& bound = layer.bound;
  if (dgamma == nullptr && dbeta == nullptr) {
    bound.layer.begin_backward_input(cache_of(cache), view_of(dy), view_of(dx), view_of(dresidual));
  } else {
    bound.layer.begin_backward(cache_of(cache), view_of(dy), view_of(dx), bound.gradients, view_of(dresidual));
  }
  bound.dgamma = dgamma;
  bound.dbeta = dbeta;
}

void finish_backward(BoundLayer& bound) {
  bound.layer.finish_backward();
  hand_over_gradients(bound);
}

}  // namespace
}  // namespace syncbn::capi

using syncbn::BatchNorm;
using syncbn::BatchNormCache;
using syncbn::Index;
using syncbn::capi::ArgumentError;
using syncbn::capi::guarded;
using syncbn::capi::on_layer;
using syncbn::capi::view_of;
using syncbn::capi::want;

extern "C" {

syncbn_status syncbn_layer_create(const syncbn_layer_options* options, syncbn_communicator* communicator,
                                  syncbn_layer** layer) {
  return guarded([&] {
    want(options, "syncbn_layer_create", "options");
    want(layer, "syncbn_layer_create", "layer");
    *layer = nullptr;
    const syncbn::BatchNormOptions made = syncbn::capi::options_of(*options);
    if (communicator == nullptr) {
      *layer = new syncbn_layer{nullptr, syncbn::capi::BoundLayer(BatchNorm(made))};
      return;
    }
    auto shared = communicator->shared;
    auto made_layer = std::unique_ptr<syncbn_layer>(
        new syncbn_layer{shared, syncbn::capi::BoundLayer(BatchNorm(made, shared->communicator))});
    shared->layers.insert(&made_layer->bound);
    *layer = made_layer.release();
  });
}

void syncbn_layer_destroy(syncbn_layer* layer) {
  if (layer != nullptr && layer->communicator != nullptr) layer->communicator->layers.erase(&layer->bound);
  delete layer;
}

syncbn_status syncbn_cache_create(syncbn_cache** cache) {
  return guarded([&] {
    want(cache, "syncbn_cache_create", "cache");
    *cache = nullptr;
    *cache = new syncbn_cache{};
  });
}

void syncbn_cache_destroy(syncbn_cache* cache) { delete cache; }

syncbn_status syncbn_layer_forward_train(syncbn_layer* layer, const syncbn_tensor* x, const syncbn_tensor* y,
                                         const syncbn_tensor* residual, syncbn_cache* cache) {
  return on_layer(layer, "syncbn_layer_forward_train", [&](BatchNorm& bn) {
    want(cache, "syncbn_layer_forward_train", "cache");
    bn.forward_train(view_of(x), view_of(y), cache->cache, view_of(residual));
  });
}

syncbn_status syncbn_layer_forward_eval(syncbn_layer* layer, const syncbn_tensor* x, const syncbn_tensor* y,
                                        const syncbn_tensor* residual) {
  return on_layer(layer, "syncbn_layer_forward_eval",
                  [&](BatchNorm& bn) { bn.forward_eval(view_of(x), view_of(y), view_of(residual)); });
}

syncbn_status syncbn_layer_forward_frozen(syncbn_layer* layer, const syncbn_tensor* x, const syncbn_tensor* y,
                                          const syncbn_tensor* residual, syncbn_cache* cache) {
  return on_layer(layer, "syncbn_layer_forward_frozen", [&](BatchNorm& bn) {
    want(cache, "syncbn_layer_forward_frozen", "cache");
    bn.forward_frozen(view_of(x), view_of(y), cache->cache, view_of(residual));
  });
}

syncbn_status syncbn_layer_forward_again(syncbn_layer* layer, syncbn_cache* cache, const syncbn_tensor* x,
                                         const syncbn_tensor* y, const syncbn_tensor* residual) {
  return on_layer(layer, "syncbn_layer_forward_again", [&](BatchNorm& bn) {
    want(cache, "syncbn_layer_forward_again", "cache");
    bn.forward_again(cache->cache, view_of(x), view_of(y), view_of(residual));
  });
}

syncbn_status syncbn_layer_backward(syncbn_layer* layer, const syncbn_cache* cache, const syncbn_tensor* dy,
                                    const syncbn_tensor* dx, const syncbn_tensor* dresidual, void* dgamma,
                                    void* dbeta) {
  return on_layer(layer, "syncbn_layer_backward", [&](BatchNorm&) {
    syncbn::capi::begin_backward(*layer, cache, dy, dx, dresidual, dgamma, dbeta);
    syncbn::capi::finish_backward(layer->bound);
  });
}

syncbn_status syncbn_layer_begin_forward_train(syncbn_layer* layer, const syncbn_tensor* x, const syncbn_tensor* y,
                                               const syncbn_tensor* residual, syncbn_cache* cache) {
  return on_layer(layer, "syncbn_layer_begin_forward_train", [&](BatchNorm& bn) {
    want(cache, "syncbn_layer_begin_forward_train", "cache");
    bn.begin_forward_train(view_of(x), view_of(y), cache->cache, view_of(residual));
  });
}

syncbn_status syncbn_layer_finish_forward_train(syncbn_layer* layer) {
  return on_layer(layer, "syncbn_layer_finish_forward_train", [&](BatchNorm& bn) { bn.finish_forward_train(); });
}

syncbn_status syncbn_layer_begin_backward(syncbn_layer* layer, const syncbn_cache* cache, const syncbn_tensor* dy,
                                          const syncbn_tensor* dx, const syncbn_tensor* dresidual, void* dgamma,
                                          void* dbeta) {
  return on_layer(layer, "syncbn_layer_begin_backward",
                  [&](BatchNorm&) { syncbn::capi::begin_backward(*layer, cache, dy, dx, dresidual, dgamma, dbeta); });
}

syncbn_status syncbn_layer_finish_backward(syncbn_layer* layer) {
  return on_layer(layer, "syncbn_layer_finish_backward",
                  [&](BatchNorm&) { syncbn::capi::finish_backward(layer->bound); });
}

syncbn_status syncbn_layer_progress(syncbn_layer* layer, int32_t* done) {
  return guarded([&] {
    want(layer, "syncbn_layer_progress", "layer");
    const bool is_done = layer->bound.layer.progress();
    if (done != nullptr) *done = is_done ? 1 : 0;
  });
}

syncbn_status syncbn_layer_state(syncbn_layer* layer, int32_t which, void** data) {
  return guarded([&] {
    want(layer, "syncbn_layer_state", "layer");
    want(data, "syncbn_layer_state", "data");
    *data = nullptr;
    auto& own = layer->bound.state(which);
    void* const bound = layer->bound.bound[static_cast<std::size_t>(which)];
    *data = bound != nullptr ? bound : syncbn::capi::data_of(own);
  });
}

syncbn_status syncbn_layer_bind(syncbn_layer* layer, int32_t which, void* data) {
  return guarded([&] {
    want(layer, "syncbn_layer_bind", "layer");
    auto& own = layer->bound.state(which);
    if (data != nullptr && own.size() == 0) {
      throw ArgumentError("[syncbn_layer_bind] layer '" + layer->bound.layer.options().name +
                          "' has no such state: it is not affine, or does not track running statistics");
    }
    void*& bound = layer->bound.bound[static_cast<std::size_t>(which)];
    if (bound != nullptr) syncbn::capi::copy_from(bound, own);
    bound = data;
  });
}

syncbn_status syncbn_layer_num_batches_tracked(const syncbn_layer* layer, int64_t* count) {
  return guarded([&] {
    want(layer, "syncbn_layer_num_batches_tracked", "layer");
    want(count, "syncbn_layer_num_batches_tracked", "count");
    *count = layer->bound.layer.num_batches_tracked();
  });
}

syncbn_status syncbn_layer_set_num_batches_tracked(syncbn_layer* layer, int64_t count) {
  return guarded([&] {
    want(layer, "syncbn_layer_set_num_batches_tracked", "layer");
    layer->bound.layer.set_num_batches_tracked(count);
  });
}

syncbn_status syncbn_cache_statistics(const syncbn_cache* cache, int32_t which, const double** data, int64_t* size) {
  return guarded([&] {
    want(cache, "syncbn_cache_statistics", "cache");
    want(data, "syncbn_cache_statistics", "data");
    if (which < SYNCBN_MEAN || which > SYNCBN_INVSTD) {
      throw ArgumentError("[syncbn_cache_statistics] which is " + std::to_string(which) +
                          ", wanted SYNCBN_MEAN (0) to SYNCBN_INVSTD (2)");
    }
    const BatchNormCache& c = cache->cache;
    const auto& values = which == SYNCBN_MEAN ? c.mean : which == SYNCBN_VAR ? c.var : c.invstd;
    *data = values.data();
    if (size != nullptr) *size = static_cast<Index>(values.size());
  });
}

syncbn_status syncbn_cache_count(const syncbn_cache* cache, int64_t* count) {
  return guarded([&] {
    want(cache, "syncbn_cache_count", "cache");
    want(count, "syncbn_cache_count", "count");
    *count = cache->cache.count;
  });
}

syncbn_status syncbn_cache_set_input(syncbn_cache* cache, const syncbn_tensor* x, const syncbn_tensor* output) {
  return guarded([&] {
    want(cache, "syncbn_cache_set_input", "cache");
    cache->cache.x = view_of(x);
    cache->cache.x_overwritten = false;
    if (output != nullptr) cache->cache.y = view_of(output);
  });
}

}  // extern "C"
