// SPDX-License-Identifier: MIT
// The layer: local sums, one message, finish, element pass, running statistics. How each is done lives elsewhere.
#include "syncbn/batch_norm.hpp"

#include <cstring>
#include <new>
#include <optional>
#include <utility>

#include "comm/round.hpp"
#include "layer/check.hpp"
#include "layer/contract.hpp"
#include "layer/element_pass.hpp"
#include "layer/fast_sums.hpp"
#include "layer/reproducible_sums.hpp"
#include "layer/state.hpp"
#include "statistics/moments.hpp"
#include "statistics/running_stats.hpp"
#include "syncbn/communicator.hpp"

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
  return tensor.shape.element_count() == 0 ? std::nullopt : std::optional(tensor.type);
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

}  // namespace

class BatchNorm::Impl {
 public:
  Impl(const BatchNormOptions& layer_options, const Communicator& group)
      : options(layer_options),
        communicator(group),
        rounds_(group.transport().duplicate(), [this](const comm::RoundKey& key) {
          return layer::where(options, layer::name_of(static_cast<Pass>(key.pass)));
        }) {
    std::optional<Problem> problem = layer::check_options(options);
    if (!problem) {
      problem = unless_out_of_memory(options, "construction", [this] { allocate(); });
    }
    layer::check_contract(options, rounds_, problem);
  }

  void forward_train(const ConstTensorView& x, const TensorView& y, const ConstTensorView& residual,
                     BatchNormCache& cache) {
    std::optional<Problem> problem = check_forward("forward", x, y, residual);
    if (!problem) problem = sum_samples(x, "forward");
    const Index local_count = problem ? 0 : x.shape.samples * x.shape.positions;
    const Index count =
        rounds_.merge(key_of(Pass::forward), {local_count, type_of(x)}, message_, sums_->merge_moments(), problem);

    check_sums("forward");
    finish_statistics(count, cache);
    fill_cache(BatchNormCache::Mode::train, x, y, count, cache);
    if (count == 0) return;
    elements_->normalize(x, y, residual, cache, state);
    update_running_stats(cache);
  }

  void forward_with_running_stats(const ConstTensorView& x, const TensorView& y, const ConstTensorView& residual,
                                  const char* pass, BatchNormCache& cache) {
    throw_if(check_forward(pass, x, y, residual));
    resize(cache);
    for (std::size_t c = 0; c < cache.mean.size(); ++c) {
      cache.mean[c] = state.running_mean[static_cast<Index>(c)];
      cache.var[c] = state.running_var[static_cast<Index>(c)];
    }
    statistics::invstd_of(options.num_features, cache.var.data(), options.eps, cache.invstd.data());
    fill_cache(BatchNormCache::Mode::frozen, x, y, x.shape.samples * x.shape.positions, cache);
    elements_->normalize(x, y, residual, cache, state);
  }

  void forward_eval(const ConstTensorView& x, const TensorView& y, const ConstTensorView& residual) {
    if (options.track_running_stats) {
      forward_with_running_stats(x, y, residual, "eval forward", eval_cache_);
    } else {
      forward_with_own_statistics(x, y, residual, eval_cache_);
    }
  }

  /// Eval of a layer without running statistics: those of this rank's own batch, as PyTorch.
  void forward_with_own_statistics(const ConstTensorView& x, const TensorView& y, const ConstTensorView& residual,
                                   BatchNormCache& cache) {
    throw_if(check_forward("eval forward", x, y, residual));
    throw_if(sum_samples(x, "eval forward"));
    check_sums("eval forward");
    const Index count = x.shape.samples * x.shape.positions;
    finish_statistics(count, cache);
    if (count > 0) elements_->normalize(x, y, residual, cache, state);
  }

  void backward(const BatchNormCache& cache, const ConstTensorView& dy, const TensorView& dx,
                const TensorView& dresidual, BatchNormGradients* gradients) {
    const bool wants_parameters = gradients != nullptr && options.affine;
    std::optional<Problem> problem = layer::check_backward(options, {cache, dy, dx, dresidual, wants_parameters});
    if (!problem) problem = state.check(options, "backward");
    const bool has_relu = options.activation == Activation::relu;
    const TensorView masked = dresidual.is_none() ? dx : dresidual;
    const layer::OutputGradient gradient =
        has_relu ? layer::OutputGradient{dy, cache.y, masked} : layer::OutputGradient{dy, {}, {}};
    if (cache.mode == BatchNormCache::Mode::frozen) {
      throw_if(problem);
      backward_frozen(cache, gradient, dx, dresidual, wants_parameters ? gradients : nullptr);
    } else {
      backward_train(cache, gradient, dx, dresidual, wants_parameters ? gradients : nullptr, problem);
    }
    if (gradients != nullptr && !wants_parameters) *gradients = BatchNormGradients{};
  }

  BatchNormOptions options;
  Communicator communicator;
  layer::State state;

 private:
  /// Everything that is as long as the layer is wide, and nothing of it later.
  void allocate() {
    state = layer::State(options);
    sums_ = make_sums(options, rounds_.rank());
    message_.resize_body(sums_->body_bytes());
    own_.emplace(options.num_features);
    global_.emplace(options.num_features);
    elements_.emplace(options);
  }

  comm::RoundKey key_of(Pass pass) const {
    return {static_cast<std::int32_t>(pass), static_cast<std::int32_t>(options.parameter_type), 0};
  }

  std::optional<Problem> check_forward(const char* pass, const ConstTensorView& x, const TensorView& y,
                                       const ConstTensorView& residual) const {
    if (auto problem = layer::check_forward(options, pass, x, y, residual)) return problem;
    return state.check(options, pass);
  }

  /// For calls that send nothing: the error is this rank's alone.
  static void throw_if(const std::optional<Problem>& problem) {
    if (problem) throw_error(problem->code, problem->text);
  }

  /// message <- the sums of this rank's samples.
  std::optional<Problem> sum_samples(const ConstTensorView& x, const char* pass) {
    return unless_out_of_memory(options, pass, [&] { sums_->add_samples(x, message_.body()); });
  }
  std::optional<Problem> sum_gradients(const BatchNormCache& cache, const layer::OutputGradient& dy, const char* pass) {
    return unless_out_of_memory(options, pass,
                                [&] { sums_->add_gradients(cache.x, dy, mean_of(cache), message_.body()); });
  }

  /// Of the sums in the message, merged or this rank's own. Merged, they are the same on every rank, and so is the error.
  void check_sums(const char* pass) const {
    const std::byte* body = message_.body();
    if (sums_->has_overflowed(body)) {
      throw StateError(layer::where(options, pass) + " the batch has more samples than can be summed");
    }
    if (options.non_finite == NonFinitePolicy::propagate) return;
    const std::optional<layer::NonFinite> found = sums_->non_finite(body);
    if (!found) return;
    const std::string rank = found->rank < 0 ? "some rank" : "rank " + std::to_string(found->rank);
    const bool can_overflow = options.parameter_type == DataType::f64;
    throw NonFiniteError(layer::where(options, pass) + " x, or dy in backward, is not finite in channel " +
                         std::to_string(found->channel) + " (" + rank + " of " + std::to_string(rounds_.size()) + ")" +
                         (can_overflow ? "; so counts f64 beyond 1e150, whose squares overflow" : ""));
  }

  void update_running_stats(const BatchNormCache& cache) {
    if (!options.track_running_stats) return;
    const double weight = statistics::weight_of_new_batch(options.momentum, state.num_batches_tracked);
    statistics::update_running_stats({cache.mean.data(), cache.var.data(), cache.count}, weight,
                                     options.unbiased_running_var, state.running_mean, state.running_var);
    ++state.num_batches_tracked;
  }

  void resize(BatchNormCache& cache) const {
    const auto channels = static_cast<std::size_t>(options.num_features);
    cache.mean.assign(channels, 0.0);
    cache.mean_lo.assign(channels, 0.0);
    cache.var.assign(channels, 0.0);
    cache.invstd.assign(channels, 0.0);
  }

  void finish_statistics(Index count, BatchNormCache& cache) {
    resize(cache);
    if (count == 0) return;
    sums_->finish_moments(message_.body(), count, cache.mean.data(), cache.mean_lo.data(), cache.var.data());
    statistics::invstd_of(options.num_features, cache.var.data(), options.eps, cache.invstd.data());
  }

  void fill_cache(BatchNormCache::Mode mode, const ConstTensorView& x, const TensorView& y, Index count,
                  BatchNormCache& cache) const {
    cache.mode = mode;
    cache.x = x;
    cache.y = options.activation == Activation::none ? ConstTensorView() : ConstTensorView(y);
    cache.x_overwritten = x.data != nullptr && x.data == y.data;
    cache.count = count;
  }

  void backward_train(const BatchNormCache& cache, const layer::OutputGradient& dy, const TensorView& dx,
                      const TensorView& dresidual, BatchNormGradients* gradients, std::optional<Problem> problem) {
    if (!problem) problem = sum_gradients(cache, dy, "backward");
    const bool local = options.parameter_gradients == ParameterGradients::local;
    if (!problem && local) finish_gradients(*own_);  // before the message turns this rank's sums into global ones
    rounds_.merge(key_of(Pass::backward), {0, type_of(dy.dy)}, message_, sums_->merge_gradients(), problem);

    check_sums("backward");
    finish_gradients(*global_);
    copy_to_residual(dy, dresidual);
    elements_->input_gradient(cache, *global_, dy.effective(), dx, state);
    if (gradients != nullptr) set_gradients(cache, local ? *own_ : *global_, options.parameter_gradients, *gradients);
  }

  void backward_frozen(const BatchNormCache& cache, const layer::OutputGradient& dy, const TensorView& dx,
                       const TensorView& dresidual, BatchNormGradients* gradients) {
    if (gradients != nullptr) {  // before dx, which may overwrite dy
      throw_if(sum_gradients(cache, dy, "frozen backward"));
      check_sums("frozen backward");
      finish_gradients(*own_);
      set_gradients(cache, *own_, ParameterGradients::local, *gradients);
    } else if (dy.is_masked()) {
      elements_->mask_gradient(dy.dy, dy.y, dy.masked);
    }
    copy_to_residual(dy, dresidual);
    elements_->frozen_input_gradient(cache, dy.effective(), dx, state);
  }

  /// Without an activation the residual's gradient is dy itself; with one it has been written already.
  static void copy_to_residual(const layer::OutputGradient& dy, const TensorView& dresidual) {
    const Index count = dresidual.shape.element_count();
    if (dy.is_masked() || count == 0 || dresidual.data == dy.dy.data) return;
    std::memcpy(dresidual.data, dy.dy.data, static_cast<std::size_t>(count * size_of(dy.dy.type)));
  }

  void finish_gradients(layer::GradientSums& sums) {
    sums_->finish_gradients(message_.body(), sums.dy.data(), sums.dy_xmu.data());
  }

  /// dgamma = sum(dy*xhat) = invstd * sum(dy*(x-mean)),  dbeta = sum(dy)
  void set_gradients(const BatchNormCache& cache, const layer::GradientSums& sums, ParameterGradients scope,
                     BatchNormGradients& gradients) const {
    gradients.scope = scope;
    gradients.dgamma.assign(options.parameter_type, options.num_features, 0.0);
    gradients.dbeta.assign(options.parameter_type, options.num_features, 0.0);
    for (Index c = 0; c < options.num_features; ++c) {
      const auto i = static_cast<std::size_t>(c);
      gradients.dgamma.set(c, cache.invstd[i] * sums.dy_xmu[i]);
      gradients.dbeta.set(c, sums.dy[i]);
    }
  }

  comm::Rounds rounds_;
  std::unique_ptr<layer::ChannelSums> sums_;
  comm::Message message_;
  std::optional<layer::GradientSums> own_, global_;  // over this rank's samples, over the batch
  std::optional<layer::ElementPass> elements_;
  BatchNormCache eval_cache_;  // kept for its storage
};

BatchNorm::BatchNorm(const BatchNormOptions& options) : BatchNorm(options, Communicator()) {}
BatchNorm::BatchNorm(const BatchNormOptions& options, const Communicator& communicator)
    : impl_(std::make_unique<Impl>(options, communicator)) {}
BatchNorm::~BatchNorm() = default;
BatchNorm::BatchNorm(BatchNorm&&) noexcept = default;
BatchNorm& BatchNorm::operator=(BatchNorm&&) noexcept = default;

BatchNormCache BatchNorm::forward_train(ConstTensorView x, TensorView y, ConstTensorView residual) {
  BatchNormCache cache;
  impl_->forward_train(x, y, residual, cache);
  return cache;
}

void BatchNorm::forward_train(ConstTensorView x, TensorView y, BatchNormCache& cache, ConstTensorView residual) {
  impl_->forward_train(x, y, residual, cache);
}

void BatchNorm::forward_eval(ConstTensorView x, TensorView y, ConstTensorView residual) const {
  impl_->forward_eval(x, y, residual);
}

BatchNormCache BatchNorm::forward_frozen(ConstTensorView x, TensorView y, ConstTensorView residual) const {
  BatchNormCache cache;
  forward_frozen(x, y, cache, residual);
  return cache;
}

void BatchNorm::forward_frozen(ConstTensorView x, TensorView y, BatchNormCache& cache, ConstTensorView residual) const {
  if (!impl_->options.track_running_stats) {
    throw StateError(layer::where(impl_->options, "frozen forward") + " the layer does not track running statistics");
  }
  impl_->forward_with_running_stats(x, y, residual, "frozen forward", cache);
}

BatchNormGradients BatchNorm::backward(const BatchNormCache& cache, ConstTensorView dy, TensorView dx,
                                       TensorView dresidual) {
  BatchNormGradients gradients;
  impl_->backward(cache, dy, dx, dresidual, &gradients);
  return gradients;
}

void BatchNorm::backward(const BatchNormCache& cache, ConstTensorView dy, TensorView dx, BatchNormGradients& gradients,
                         TensorView dresidual) {
  impl_->backward(cache, dy, dx, dresidual, &gradients);
}

void BatchNorm::backward_input(const BatchNormCache& cache, ConstTensorView dy, TensorView dx, TensorView dresidual) {
  impl_->backward(cache, dy, dx, dresidual, nullptr);
}

const BatchNormOptions& BatchNorm::options() const noexcept { return impl_->options; }
const Communicator& BatchNorm::communicator() const noexcept { return impl_->communicator; }
ChannelVector& BatchNorm::gamma() noexcept { return impl_->state.gamma; }
ChannelVector& BatchNorm::beta() noexcept { return impl_->state.beta; }
ChannelVector& BatchNorm::running_mean() noexcept { return impl_->state.running_mean; }
ChannelVector& BatchNorm::running_var() noexcept { return impl_->state.running_var; }
const ChannelVector& BatchNorm::gamma() const noexcept { return impl_->state.gamma; }
const ChannelVector& BatchNorm::beta() const noexcept { return impl_->state.beta; }
const ChannelVector& BatchNorm::running_mean() const noexcept { return impl_->state.running_mean; }
const ChannelVector& BatchNorm::running_var() const noexcept { return impl_->state.running_var; }
Index BatchNorm::num_batches_tracked() const noexcept { return impl_->state.num_batches_tracked; }
void BatchNorm::set_num_batches_tracked(Index count) {
  if (count < 0) {
    throw StateError(layer::where(impl_->options, "set_num_batches_tracked") + " count is " + std::to_string(count) +
                     ", it must be at least 0");
  }
  impl_->state.num_batches_tracked = count;
}

}  // namespace syncbn
