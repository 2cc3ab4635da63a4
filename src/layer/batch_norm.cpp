// SPDX-License-Identifier: MIT
// The layer: local sums, one message, finish, element pass, running statistics. How each is done lives elsewhere.
#include "syncbn/batch_norm.hpp"

#include <cmath>
#include <optional>
#include <utility>

#include "comm/round.hpp"
#include "kernels/kernels.hpp"
#include "layer/blocks.hpp"
#include "layer/check.hpp"
#include "layer/contract.hpp"
#include "layer/fast_sums.hpp"
#include "layer/nan_channels.hpp"
#include "layer/parallel.hpp"
#include "layer/reproducible_sums.hpp"
#include "statistics/moments.hpp"
#include "statistics/running_stats.hpp"
#include "syncbn/communicator.hpp"

namespace syncbn {

using layer::Pass;
using layer::Problem;

namespace {

/// Numbers of one size C each, made once.
struct Workspace {
  explicit Workspace(Index channels)
      : scale(static_cast<std::size_t>(channels)),
        shift(scale),
        mean_dy(scale),
        slope(scale),
        own(scale),
        global(scale) {}

  struct GradientSums {
    explicit GradientSums(const std::vector<double>& like) : dy(like), dy_xmu(like) {}
    std::vector<double> dy, dy_xmu;  // sum(dy), sum(dy*(x-mean))
  };
  std::vector<double> scale, shift;    // gamma*invstd, beta
  std::vector<double> mean_dy, slope;  // mean(dy), mean(dy*xhat)
  GradientSums own, global;            // over this rank's samples, over the batch
};

/// The mean from channel c on.
kernels::Mean mean_of(const BatchNormCache& statistics, Index c = 0) {
  return {statistics.mean.data() + c, statistics.mean_lo.data() + c};
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
    layer::check_contract(options, rounds_);
    const Index channels = options.num_features;
    if (options.affine) {
      gamma.assign(options.parameter_type, channels, 1.0);
      beta.assign(options.parameter_type, channels, 0.0);
    }
    if (options.track_running_stats) {
      running_mean.assign(options.parameter_type, channels, 0.0);
      running_var.assign(options.parameter_type, channels, 1.0);
    }
    if (options.reduction == Reduction::fast) {
      sums_ = std::make_unique<layer::FastSums>(channels, rounds_.rank());
    } else {
      sums_ =
          std::make_unique<layer::ReproducibleSums>(channels, options.parameter_type, rounds_.rank(), options.threads);
    }
    work_.emplace(channels);
  }

  void forward_train(const ConstTensorView& x, const TensorView& y, BatchNormCache& cache) {
    const auto problem = layer::check_forward(options, "forward", x, y);
    message_.resize_body(sums_->body_bytes());
    if (!problem) sums_->add_samples(x, message_.body());
    const Index local_count = problem ? 0 : x.shape.samples * x.shape.positions;
    const Index count = rounds_.merge(key_of(Pass::forward), local_count, message_, sums_->merge_moments(), problem);

    check_sums(Pass::forward);
    finish_statistics(message_.body(), count, cache);
    fill_cache(BatchNormCache::Mode::train, x, y, count, cache);
    if (count == 0) return;
    normalize(x, y, cache);
    if (options.track_running_stats) {
      const double weight = statistics::weight_of_new_batch(options.momentum, num_batches_tracked);
      statistics::update_running_stats({cache.mean.data(), cache.var.data(), count}, weight,
                                       options.unbiased_running_var, running_mean, running_var);
      ++num_batches_tracked;
    }
  }

  void forward_with_running_stats(const ConstTensorView& x, const TensorView& y, const char* pass,
                                  BatchNormCache& cache) {
    throw_if(layer::check_forward(options, pass, x, y));
    const auto channels = static_cast<std::size_t>(options.num_features);
    cache.mean.resize(channels);
    cache.mean_lo.assign(channels, 0.0);
    cache.var.resize(channels);
    cache.invstd.resize(channels);
    for (std::size_t c = 0; c < channels; ++c) {
      cache.mean[c] = running_mean[static_cast<Index>(c)];
      cache.var[c] = running_var[static_cast<Index>(c)];
    }
    statistics::invstd_of(options.num_features, cache.var.data(), options.eps, cache.invstd.data());
    fill_cache(BatchNormCache::Mode::frozen, x, y, x.shape.samples * x.shape.positions, cache);
    normalize(x, y, cache);
  }

  /// Eval of a layer without running statistics: those of this rank's own batch, as PyTorch.
  void forward_with_own_statistics(const ConstTensorView& x, const TensorView& y, BatchNormCache& cache) {
    throw_if(layer::check_forward(options, "eval forward", x, y));
    const Index count = x.shape.samples * x.shape.positions;
    message_.resize_body(sums_->body_bytes());
    sums_->add_samples(x, message_.body());
    finish_statistics(message_.body(), count, cache);
    if (count > 0) normalize(x, y, cache);
  }

  void backward(const BatchNormCache& cache, const ConstTensorView& dy, const TensorView& dx,
                BatchNormGradients* gradients) {
    const bool wants_parameters = gradients != nullptr && options.affine;
    const auto problem = layer::check_backward(options, cache, dy, dx, wants_parameters);
    if (cache.mode == BatchNormCache::Mode::frozen) {
      throw_if(problem);
      backward_frozen(cache, dy, dx, wants_parameters ? gradients : nullptr);
    } else {
      backward_train(cache, dy, dx, wants_parameters ? gradients : nullptr, problem);
    }
    if (gradients != nullptr && !wants_parameters) *gradients = BatchNormGradients{};
  }

  BatchNormOptions options;
  Communicator communicator;
  ChannelVector gamma, beta, running_mean, running_var;
  Index num_batches_tracked = 0;

 private:
  comm::RoundKey key_of(Pass pass) const {
    return {static_cast<std::int32_t>(pass), static_cast<std::int32_t>(options.parameter_type), 0};
  }

  /// For calls that send nothing: the error is this rank's alone.
  static void throw_if(const std::optional<Problem>& problem) {
    if (problem) throw_error(problem->code, problem->text);
  }

  /// Of the merged sums: every rank finds the same.
  void check_sums(Pass pass) const {
    const std::byte* body = message_.body();
    if (sums_->has_overflowed(body)) {
      throw StateError(layer::where(options, layer::name_of(pass)) +
                       " the batch has more samples than can be summed (2^26)");
    }
    if (options.non_finite == NonFinitePolicy::propagate) return;
    const std::optional<layer::NonFinite> found = sums_->non_finite(body);
    if (!found) return;
    const std::string rank = found->rank < 0 ? "some rank" : "rank " + std::to_string(found->rank);
    throw NonFiniteError(
        layer::where(options, layer::name_of(pass)) + (pass == Pass::forward ? " x" : " x or dy") +
        " is not finite in channel " + std::to_string(found->channel) + " (" + rank + " of " +
        std::to_string(rounds_.size()) + ")" +
        (options.parameter_type == DataType::f64 ? "; so counts f64 beyond 1e150, whose squares overflow" : ""));
  }

  void finish_statistics(const std::byte* body, Index count, BatchNormCache& cache) {
    const auto channels = static_cast<std::size_t>(options.num_features);
    cache.mean.assign(channels, 0.0);
    cache.mean_lo.assign(channels, 0.0);
    cache.var.assign(channels, 0.0);
    cache.invstd.assign(channels, 0.0);
    if (count == 0) return;
    sums_->finish_moments(body, count, cache.mean.data(), cache.mean_lo.data(), cache.var.data());
    statistics::invstd_of(options.num_features, cache.var.data(), options.eps, cache.invstd.data());
  }

  static void fill_cache(BatchNormCache::Mode mode, const ConstTensorView& x, const TensorView& y, Index count,
                         BatchNormCache& cache) {
    cache.mode = mode;
    cache.x = x;
    cache.x_overwritten = x.data != nullptr && x.data == y.data;
    cache.count = count;
  }

  /// y = gamma * (x - mean) * invstd + beta
  void normalize(const ConstTensorView& x, const TensorView& y, const BatchNormCache& statistics) {
    if (x.shape.element_count() == 0) return;
    set_scale(statistics);
    for (Index c = 0; c < options.num_features; ++c) {
      work_->shift[static_cast<std::size_t>(c)] = options.affine ? beta[c] : 0.0;
    }
    const kernels::KernelTable& kernel = kernels::table_for(x.type);
    layer::for_each_piece(layer::pass_shape_of(x, y), options.threads, [&](const layer::Piece& piece) {
      const Index c = piece.channel;
      kernel.normalize(layer::element_of(x, piece.offset), layer::element_of(y, piece.offset), piece.shape,
                       {mean_of(statistics, c), work_->scale.data() + c, work_->shift.data() + c});
    });
    fill_nan_channels(y, [&](std::size_t c) {
      return std::isnan(statistics.mean[c]) || std::isnan(work_->scale[c]) || std::isnan(work_->shift[c]);
    });
  }

  /// NaN for all of channel c if is_nan(c).
  template <class IsNan>
  void fill_nan_channels(const TensorView& result, const IsNan& is_nan) const {
    for (Index c = 0; c < options.num_features; ++c) {
      if (is_nan(static_cast<std::size_t>(c))) layer::fill_channel_with_nan(result, c);
    }
  }

  /// scale = gamma * invstd
  void set_scale(const BatchNormCache& statistics) {
    for (Index c = 0; c < options.num_features; ++c) {
      const auto i = static_cast<std::size_t>(c);
      work_->scale[i] = options.affine ? gamma[c] * statistics.invstd[i] : statistics.invstd[i];
    }
  }

  void backward_train(const BatchNormCache& cache, const ConstTensorView& dy, const TensorView& dx,
                      BatchNormGradients* gradients, const std::optional<Problem>& problem) {
    message_.resize_body(sums_->body_bytes());
    if (!problem) sums_->add_gradients(cache.x, dy, mean_of(cache), message_.body());
    const bool local = options.parameter_gradients == ParameterGradients::local;
    if (!problem && local) finish_gradients(work_->own);  // before the message turns this rank's sums into global ones
    rounds_.merge(key_of(Pass::backward), 0, message_, sums_->merge_gradients(), problem);

    check_sums(Pass::backward);
    finish_gradients(work_->global);
    if (dx.shape.element_count() > 0) input_gradient(cache, dy, dx);
    if (gradients != nullptr) {
      set_gradients(cache, local ? work_->own : work_->global, options.parameter_gradients, *gradients);
    }
  }

  void finish_gradients(Workspace::GradientSums& sums) {
    sums_->finish_gradients(message_.body(), sums.dy.data(), sums.dy_xmu.data());
  }

  /// dx = gamma*invstd * ( dy - mean(dy) - xhat * mean(dy*xhat) )
  void input_gradient(const BatchNormCache& cache, const ConstTensorView& dy, const TensorView& dx) {
    set_scale(cache);
    const double count = static_cast<double>(cache.count);
    for (std::size_t c = 0; c < cache.invstd.size(); ++c) {
      work_->mean_dy[c] = work_->global.dy[c] / count;
      work_->slope[c] = cache.invstd[c] * (work_->global.dy_xmu[c] / count);
    }
    const kernels::KernelTable& kernel = kernels::table_for(dy.type);
    layer::for_each_piece(layer::pass_shape_of(dy, dx), options.threads, [&](const layer::Piece& piece) {
      const Index c = piece.channel;
      kernel.input_gradient(layer::element_of(cache.x, piece.offset), layer::element_of(dy, piece.offset),
                            layer::element_of(dx, piece.offset), piece.shape,
                            {mean_of(cache, c), cache.invstd.data() + c, work_->mean_dy.data() + c,
                             work_->slope.data() + c, work_->scale.data() + c});
    });
    const auto& sum_dy = work_->global.dy;
    const auto& sum_dy_xmu = work_->global.dy_xmu;
    fill_nan_channels(dx, [&](std::size_t c) {
      return std::isnan(work_->scale[c]) || !std::isfinite(sum_dy[c]) || !std::isfinite(sum_dy_xmu[c]);
    });
  }

  void backward_frozen(const BatchNormCache& cache, const ConstTensorView& dy, const TensorView& dx,
                       BatchNormGradients* gradients) {
    if (gradients != nullptr) {  // before dx, which may overwrite dy
      message_.resize_body(sums_->body_bytes());
      sums_->add_gradients(cache.x, dy, mean_of(cache), message_.body());
      finish_gradients(work_->own);
      set_gradients(cache, work_->own, ParameterGradients::local, *gradients);
    }
    if (dx.shape.element_count() == 0) return;
    set_scale(cache);
    const kernels::KernelTable& kernel = kernels::table_for(dy.type);
    layer::for_each_piece(layer::pass_shape_of(dy, dx), options.threads, [&](const layer::Piece& piece) {
      kernel.scale(layer::element_of(dy, piece.offset), layer::element_of(dx, piece.offset), piece.shape,
                   work_->scale.data() + piece.channel);
    });
    fill_nan_channels(dx, [&](std::size_t c) { return std::isnan(work_->scale[c]); });
  }

  /// dgamma = sum(dy*xhat) = invstd * sum(dy*(x-mean)),  dbeta = sum(dy)
  void set_gradients(const BatchNormCache& cache, const Workspace::GradientSums& sums, ParameterGradients scope,
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
  std::optional<Workspace> work_;
};

BatchNorm::BatchNorm(const BatchNormOptions& options) : BatchNorm(options, Communicator()) {}
BatchNorm::BatchNorm(const BatchNormOptions& options, const Communicator& communicator)
    : impl_(std::make_unique<Impl>(options, communicator)) {}
BatchNorm::~BatchNorm() = default;
BatchNorm::BatchNorm(BatchNorm&&) noexcept = default;
BatchNorm& BatchNorm::operator=(BatchNorm&&) noexcept = default;

BatchNormCache BatchNorm::forward_train(ConstTensorView x, TensorView y) {
  BatchNormCache cache;
  impl_->forward_train(x, y, cache);
  return cache;
}

void BatchNorm::forward_train(ConstTensorView x, TensorView y, BatchNormCache& cache) {
  impl_->forward_train(x, y, cache);
}

void BatchNorm::forward_eval(ConstTensorView x, TensorView y) const {
  BatchNormCache unused;
  if (impl_->options.track_running_stats) {
    impl_->forward_with_running_stats(x, y, "eval forward", unused);
  } else {
    impl_->forward_with_own_statistics(x, y, unused);
  }
}

BatchNormCache BatchNorm::forward_frozen(ConstTensorView x, TensorView y) const {
  BatchNormCache cache;
  forward_frozen(x, y, cache);
  return cache;
}

void BatchNorm::forward_frozen(ConstTensorView x, TensorView y, BatchNormCache& cache) const {
  if (!impl_->options.track_running_stats) {
    throw StateError(layer::where(impl_->options, "frozen forward") + " the layer does not track running statistics");
  }
  impl_->forward_with_running_stats(x, y, "frozen forward", cache);
}

BatchNormGradients BatchNorm::backward(const BatchNormCache& cache, ConstTensorView dy, TensorView dx) {
  BatchNormGradients gradients;
  impl_->backward(cache, dy, dx, &gradients);
  return gradients;
}

void BatchNorm::backward(const BatchNormCache& cache, ConstTensorView dy, TensorView dx,
                         BatchNormGradients& gradients) {
  impl_->backward(cache, dy, dx, &gradients);
}

void BatchNorm::backward_input(const BatchNormCache& cache, ConstTensorView dy, TensorView dx) {
  impl_->backward(cache, dy, dx, nullptr);
}

const BatchNormOptions& BatchNorm::options() const noexcept { return impl_->options; }
const Communicator& BatchNorm::communicator() const noexcept { return impl_->communicator; }
ChannelVector& BatchNorm::gamma() noexcept { return impl_->gamma; }
ChannelVector& BatchNorm::beta() noexcept { return impl_->beta; }
ChannelVector& BatchNorm::running_mean() noexcept { return impl_->running_mean; }
ChannelVector& BatchNorm::running_var() noexcept { return impl_->running_var; }
const ChannelVector& BatchNorm::gamma() const noexcept { return impl_->gamma; }
const ChannelVector& BatchNorm::beta() const noexcept { return impl_->beta; }
const ChannelVector& BatchNorm::running_mean() const noexcept { return impl_->running_mean; }
const ChannelVector& BatchNorm::running_var() const noexcept { return impl_->running_var; }
Index BatchNorm::num_batches_tracked() const noexcept { return impl_->num_batches_tracked; }
void BatchNorm::set_num_batches_tracked(Index count) noexcept { impl_->num_batches_tracked = count; }

}  // namespace syncbn
