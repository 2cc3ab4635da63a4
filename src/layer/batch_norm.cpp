// SPDX-License-Identifier: MIT
// The layer: local sums, one message, finish, element pass, running statistics. How each is done lives elsewhere.
#include <cstring>
#include <new>
#include <utility>

#include "layer/check.hpp"
#include "layer/fast_sums.hpp"
#include "layer/impl.hpp"
#include "layer/reproducible_sums.hpp"
#include "statistics/moments.hpp"
#include "statistics/running_stats.hpp"

namespace syncbn {

using layer::Pass;
using layer::Problem;

namespace {

std::unique_ptr<layer::ChannelSums> make_sums(const BatchNormOptions& options, int rank) {
  if (options.reduction == Reduction::fast) return std::make_unique<layer::FastSums>(options.num_features, rank);
  return std::make_unique<layer::ReproducibleSums>(options.num_features, options.parameter_type, rank, options.threads);
}

kernels::Mean mean_of(const BatchNormCache& cache) { return {cache.mean.data(), cache.mean_lo.data()}; }

/// None of a shard that need not have a tensor.
std::optional<DataType> type_of(const ConstTensorView& tensor) {
  return tensor.shape.is_empty() ? std::nullopt : std::optional(tensor.type);
}

/// Runs a rank's own part of a pass, which the others know nothing of: if memory runs out here, all must hear of it.
template <class Work>
std::optional<Problem> unless_out_of_memory(const BatchNormOptions& options, const char* pass, const Work& work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    return Problem{ErrorCode::state, layer::where(options, pass) + " out of memory"};
  }
  return std::nullopt;
}

void resize(BatchNormCache& cache, Index num_features) {
  const auto channels = static_cast<std::size_t>(num_features);
  cache.mean.assign(channels, 0.0);
  cache.mean_lo.assign(channels, 0.0);
  cache.var.assign(channels, 0.0);
  cache.invstd.assign(channels, 0.0);
}

/// For calls that send nothing: the error is this rank's alone.
void throw_if(const std::optional<Problem>& problem) {
  if (problem) throw_error(problem->code, problem->text);
}

/// Without an activation the residual's gradient is dy itself; with one it has been written already.
void copy_to_residual(const layer::OutputGradient& dy, const TensorView& dresidual) {
  const Index count = dresidual.shape.element_count();
  if (dy.is_masked() || count == 0 || dresidual.data == dy.dy.data) return;
  std::memcpy(dresidual.data, dy.dy.data, static_cast<std::size_t>(count * size_of(dy.dy.type)));
}

}  // namespace

BatchNorm::Impl::Impl(const BatchNormOptions& layer_options, const Communicator& group)
    : options(layer_options), communicator(group), costs(layer_options.measures_costs, 0) {
  std::optional<Problem> problem = layer::check_options(options);
  comm::Message message;
  if (!problem) {
    problem = unless_out_of_memory(options, "construction", [&] { allocate(message); });
  }
  layer::check_contract(options, communicator.group(), problem);
  const auto describe = [this](const comm::RoundKey& key) {
    if (key.is_any_pass()) return layer::where(options);
    return layer::where(options, layer::name_of(static_cast<Pass>(key.pass)));
  };
  rounds_.emplace(communicator.group(), describe, this);
  rounds_->message() = std::move(message);
}

/// Everything that is as long as the layer is wide, and nothing of it later.
void BatchNorm::Impl::allocate(comm::Message& message) {
  state = layer::State(options);
  sums_ = make_sums(options, communicator.rank());
  message.resize_body(sums_->body_bytes());
  costs = layer::CostMeter(options.measures_costs, communicator.size() > 1 ? message.bytes() : 0);
  own_.emplace(options.num_features);
  global_.emplace(options.num_features);
  elements_.emplace(options);
  if (options.drift_probe != nullptr) drift_.emplace(options, communicator.rank(), communicator.size());
}

void BatchNorm::Impl::begin_forward(const ConstTensorView& x, const TensorView& y, const ConstTensorView& residual,
                                    BatchNormCache& cache) {
  check_idle("forward");
  costs.begin();
  std::optional<Problem> problem = check_forward("forward", x, y, residual);
  if (!problem) problem = sum_samples(x, "forward");
  const Index local_count = problem ? 0 : x.shape.samples * x.shape.positions;
  forward_ = {x, y, residual, &cache};
  costs.add_statistics();
  if (drift_ && !problem) {
    drift_->begin(*sums_, message().body(), local_count);
    costs.resume();
  }
  rounds_->begin(static_cast<std::int32_t>(Pass::forward), {local_count, type_of(x)}, sums_->merge(),
                 std::move(problem));
  costs.add_message();
  in_flight_ = InFlight::forward;
}

void BatchNorm::Impl::finish_forward() {
  take(InFlight::forward, "forward");
  costs.resume();
  if (drift_) drift_->start_waiting();
  const Index count = rounds_->finish();
  if (drift_) drift_->stop_waiting();
  costs.add_message();

  check_sums("forward");
  const auto& [x, y, residual, cache] = forward_;
  finish_statistics(count, *cache);
  fill_cache(BatchNormCache::Mode::train, x, y, count, *cache);
  costs.add_statistics();
  if (count == 0) return costs.commit_forward();
  elements_->normalize(x, y, residual, *cache, state);
  costs.add_elements();
  update_running_stats(*cache);
  costs.add_statistics();
  costs.commit_forward();
  if (drift_) drift_->report(*cache);
}

void BatchNorm::Impl::begin_backward(const BatchNormCache& cache, const ConstTensorView& dy, const TensorView& dx,
                                     const TensorView& dresidual, BatchNormGradients* gradients) {
  check_idle("backward");
  costs.begin();
  const bool wants_parameters = gradients != nullptr && options.affine;
  std::optional<Problem> problem = layer::check_backward(options, {cache, dy, dx, dresidual, wants_parameters});
  if (!problem) problem = state.check(options, "backward");
  const bool has_relu = options.activation == Activation::relu;
  const TensorView masked = dresidual.is_none() ? dx : dresidual;
  const layer::OutputGradient gradient =
      has_relu ? layer::OutputGradient{dy, cache.y, masked} : layer::OutputGradient{dy, {}, {}};
  backward_ = {
      &cache, gradient, dx, dresidual, wants_parameters ? gradients : nullptr, wants_parameters ? nullptr : gradients};
  if (cache.mode == BatchNormCache::Mode::frozen) {
    throw_if(problem);
    in_flight_ = InFlight::frozen_backward;
    return;
  }
  if (!problem) problem = sum_gradients(cache, gradient, "backward");
  // Before the message turns this rank's sums into global ones.
  if (!problem && options.parameter_gradients == ParameterGradients::local) finish_gradients(*own_);
  costs.add_statistics();
  rounds_->begin(static_cast<std::int32_t>(Pass::backward), {0, type_of(dy)}, sums_->merge(), std::move(problem));
  costs.add_message();
  in_flight_ = InFlight::backward;
}

void BatchNorm::Impl::finish_backward() {
  const auto& [cache, dy, dx, dresidual, gradients, cleared] = backward_;
  if (in_flight_ == InFlight::frozen_backward) {
    in_flight_ = InFlight::nothing;
    backward_frozen(backward_);
  } else {
    take(InFlight::backward, "backward");
    costs.resume();
    rounds_->finish();
    costs.add_message();

    check_sums("backward");
    finish_gradients(*global_);
    costs.add_statistics();
    copy_to_residual(dy, dresidual);
    elements_->input_gradient(*cache, *global_, dy.effective(), dx, state);
    costs.add_elements();
    const bool local = options.parameter_gradients == ParameterGradients::local;
    if (gradients != nullptr) set_gradients(*cache, local ? *own_ : *global_, options.parameter_gradients, *gradients);
    costs.add_statistics();
    costs.commit_backward();
  }
  if (cleared != nullptr) *cleared = BatchNormGradients{};
}

void BatchNorm::Impl::backward_frozen(const Backward& step) {
  const auto& [cache, dy, dx, dresidual, gradients, cleared] = step;
  if (gradients != nullptr) {  // before dx, which may overwrite dy
    throw_if(sum_gradients(*cache, dy, "frozen backward"));
    check_sums("frozen backward");
    finish_gradients(*own_);
    set_gradients(*cache, *own_, ParameterGradients::local, *gradients);
  } else if (dy.is_masked()) {
    elements_->mask_gradient(dy.dy, dy.y, dy.masked);
  }
  copy_to_residual(dy, dresidual);
  elements_->frozen_input_gradient(*cache, dy.effective(), dx, state);
}

bool BatchNorm::Impl::progress() { return in_flight_ == InFlight::nothing || rounds_->progress(); }

/// What a rank without data does after a round of the others: it keeps its running statistics equal to theirs.
void BatchNorm::Impl::finish(std::int32_t pass, std::int64_t count) {
  if (static_cast<Pass>(pass) != Pass::forward) return check_sums("backward");
  check_sums("forward");
  if (count == 0) return;
  finish_statistics(count, spare_cache_);
  spare_cache_.count = count;
  update_running_stats(spare_cache_);
}

void BatchNorm::Impl::forward_with_running_stats(const ConstTensorView& x, const TensorView& y,
                                                 const ConstTensorView& residual, const char* pass,
                                                 BatchNormCache& cache) {
  throw_if(check_forward(pass, x, y, residual));
  resize(cache, options.num_features);
  for (std::size_t c = 0; c < cache.mean.size(); ++c) {
    cache.mean[c] = state.running_mean[static_cast<Index>(c)];
    cache.var[c] = state.running_var[static_cast<Index>(c)];
  }
  statistics::invstd_of(options.num_features, cache.var.data(), options.eps, cache.invstd.data());
  fill_cache(BatchNormCache::Mode::frozen, x, y, x.shape.samples * x.shape.positions, cache);
  elements_->normalize(x, y, residual, cache, state);
}

void BatchNorm::Impl::forward_eval(const ConstTensorView& x, const TensorView& y, const ConstTensorView& residual) {
  if (options.track_running_stats) {
    forward_with_running_stats(x, y, residual, "eval forward", spare_cache_);
  } else {
    forward_with_own_statistics(x, y, residual, spare_cache_);
  }
}

void BatchNorm::Impl::forward_again(BatchNormCache& cache, const ConstTensorView& x, const TensorView& y,
                                    const ConstTensorView& residual) {
  throw_if(check_forward("forward again", x, y, residual));
  if (cache.mode == BatchNormCache::Mode::none || cache.mean.size() != static_cast<std::size_t>(options.num_features)) {
    throw StateError(layer::where(options, "forward again") + " the cache is not one of a forward pass of this layer");
  }
  fill_cache(cache.mode, x, y, cache.count, cache);
  if (x.shape.samples > 0) elements_->normalize(x, y, residual, cache, state);
}

/// Eval of a layer without running statistics: those of this rank's own batch, as PyTorch.
void BatchNorm::Impl::forward_with_own_statistics(const ConstTensorView& x, const TensorView& y,
                                                  const ConstTensorView& residual, BatchNormCache& cache) {
  check_idle("eval forward");
  throw_if(check_forward("eval forward", x, y, residual));
  throw_if(sum_samples(x, "eval forward"));
  check_sums("eval forward");
  const Index count = x.shape.samples * x.shape.positions;
  finish_statistics(count, cache);
  if (count > 0) elements_->normalize(x, y, residual, cache, state);
}

/// The message is in use while a pass is in flight.
void BatchNorm::Impl::check_idle(const char* pass) const {
  const bool has_joined = communicator.group().has_to_join_again();
  if (in_flight_ == InFlight::nothing && !rounds_->is_in_flight() && !has_joined) return;
  communicator.group().watch().throw_if_failed();  // what failed with the group stays in flight
  throw StateError(layer::where(options, pass) + (has_joined ? " this rank has not come back from join()"
                                                             : " a pass that was begun has not been finished"));
}

void BatchNorm::Impl::take(InFlight wanted, const char* pass) {
  if (in_flight_ != wanted) throw StateError(layer::where(options, pass) + " was not begun, so it cannot be finished");
  in_flight_ = InFlight::nothing;
}

std::optional<Problem> BatchNorm::Impl::check_forward(const char* pass, const ConstTensorView& x, const TensorView& y,
                                                      const ConstTensorView& residual) const {
  if (auto problem = layer::check_forward(options, pass, x, y, residual)) return problem;
  return state.check(options, pass);
}

/// message <- the sums of this rank's samples.
std::optional<Problem> BatchNorm::Impl::sum_samples(const ConstTensorView& x, const char* pass) {
  return unless_out_of_memory(options, pass, [&] { sums_->add_samples(x, message().body()); });
}

std::optional<Problem> BatchNorm::Impl::sum_gradients(const BatchNormCache& cache, const layer::OutputGradient& dy,
                                                      const char* pass) {
  return unless_out_of_memory(options, pass,
                              [&] { sums_->add_gradients(cache.x, dy, mean_of(cache), message().body()); });
}

/// Of the sums in the message, merged or this rank's own. Merged, they are the same on every rank, and so is the error.
void BatchNorm::Impl::check_sums(const char* pass) const {
  const std::byte* body = message().body();
  if (sums_->has_overflowed(body)) {
    throw StateError(layer::where(options, pass) + " the batch has more samples than can be summed");
  }
  if (options.non_finite == NonFinitePolicy::propagate) return;
  const std::optional<layer::NonFinite> found = sums_->non_finite(body);
  if (!found) return;
  const std::string rank = found->rank < 0 ? "some rank" : "rank " + std::to_string(found->rank);
  const bool can_overflow = options.parameter_type == DataType::f64;
  throw NonFiniteError(layer::where(options, pass) + " x, or dy in backward, is not finite in channel " +
                       std::to_string(found->channel) + " (" + rank + " of " + std::to_string(rounds_->size()) + ")" +
                       (can_overflow ? "; so counts f64 beyond 1e150, whose squares overflow" : ""));
}

void BatchNorm::Impl::update_running_stats(const BatchNormCache& cache) {
  if (!options.track_running_stats) return;
  const double weight = statistics::weight_of_new_batch(options.momentum, state.num_batches_tracked);
  statistics::update_running_stats({cache.mean.data(), cache.var.data(), cache.count}, weight,
                                   options.unbiased_running_var, state.running_mean, state.running_var);
  ++state.num_batches_tracked;
}

void BatchNorm::Impl::finish_statistics(Index count, BatchNormCache& cache) {
  resize(cache, options.num_features);
  if (count == 0) return;
  sums_->finish_moments(message().body(), count, cache.mean.data(), cache.mean_lo.data(), cache.var.data());
  statistics::invstd_of(options.num_features, cache.var.data(), options.eps, cache.invstd.data());
}

void BatchNorm::Impl::fill_cache(BatchNormCache::Mode mode, const ConstTensorView& x, const TensorView& y, Index count,
                                 BatchNormCache& cache) const {
  cache.mode = mode;
  cache.x = x;
  cache.y = options.activation == Activation::none ? ConstTensorView() : ConstTensorView(y);
  cache.x_overwritten = x.data != nullptr && x.data == y.data;
  cache.count = count;
}

void BatchNorm::Impl::finish_gradients(layer::GradientSums& sums) {
  sums_->finish_gradients(message().body(), sums.dy.data(), sums.dy_xmu.data());
}

/// dgamma = sum(dy*xhat) = invstd * sum(dy*(x-mean)),  dbeta = sum(dy)
void BatchNorm::Impl::set_gradients(const BatchNormCache& cache, const layer::GradientSums& sums,
                                    ParameterGradients scope, BatchNormGradients& gradients) const {
  gradients.scope = scope;
  gradients.dgamma.assign(options.parameter_type, options.num_features, 0.0);
  gradients.dbeta.assign(options.parameter_type, options.num_features, 0.0);
  for (Index c = 0; c < options.num_features; ++c) {
    const auto i = static_cast<std::size_t>(c);
    gradients.dgamma.set(c, cache.invstd[i] * sums.dy_xmu[i]);
    gradients.dbeta.set(c, sums.dy[i]);
  }
}

}  // namespace syncbn
