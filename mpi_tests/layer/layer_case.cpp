// SPDX-License-Identifier: MIT
#include "layer/layer_case.hpp"

#include <sstream>

namespace syncbn::testing {
namespace {

std::string describe(const inputs::Recipe& recipe, const std::vector<Index>& counts,
                     const std::vector<std::vector<Index>>& spatial) {
  std::ostringstream text;
  text << "seed " << recipe.seed << ", C " << recipe.channels << ", " << name_of(recipe.layout) << ", mean "
       << recipe.offset << ", sigma " << recipe.scale << ", samples per rank";
  for (std::size_t r = 0; r < counts.size(); ++r) {
    text << (r == 0 ? " " : ", ") << counts[r];
    for (const Index extent : spatial[r]) text << "x" << extent;
  }
  return text.str();
}

std::size_t my_part() { return static_cast<std::size_t>(world_rank()); }

}  // namespace

template <class T>
LayerCase<T> make_case(const inputs::Recipe& recipe, const std::vector<Index>& counts,
                       const std::vector<std::vector<Index>>& spatial) {
  LayerCase<T> result;
  result.options.num_features = recipe.channels;
  result.options.parameter_type = parameter_type_for(DataTypeOf<T>::value);
  result.x = inputs::batch<T>(recipe, counts, spatial);
  inputs::Recipe gradient = recipe;
  gradient.seed = recipe.seed + 1000;
  gradient.offset = 0;
  gradient.scale = 1;
  result.dy = inputs::batch<T>(gradient, counts, spatial);
  result.gamma = inputs::parameters(recipe.seed + 2000, recipe.channels, 1.0, 0.5);
  for (std::size_t c = 1; c < result.gamma.size(); c += 2) result.gamma[c] = -result.gamma[c];
  result.beta = inputs::parameters(recipe.seed + 3000, recipe.channels, 0.0, 1.0);
  result.description = describe(recipe, counts, spatial);
  return result;
}

template <class T>
LayerCase<T> make_case(const inputs::Recipe& recipe, const std::vector<Index>& counts) {
  return make_case<T>(recipe, counts, std::vector<std::vector<Index>>(counts.size(), recipe.spatial));
}

template <class T>
BatchNorm make_layer(const LayerCase<T>& layer_case, const Communicator& group) {
  BatchNorm layer(layer_case.options, group);
  if (layer_case.options.affine) {
    for (Index c = 0; c < layer_case.options.num_features; ++c) {
      layer.gamma().set(c, layer_case.gamma[static_cast<std::size_t>(c)]);
      layer.beta().set(c, layer_case.beta[static_cast<std::size_t>(c)]);
    }
  }
  return layer;
}

template <class T>
StepResult<T> run_step(BatchNorm& layer, const Tensor<T>& x, const Tensor<T>& dy) {
  StepResult<T> step;
  step.y = zeros_like<T>(x);
  step.dx = zeros_like<T>(x);
  step.cache = layer.forward_train(x.view(), step.y.view());
  step.gradients = layer.backward(step.cache, dy.view(), step.dx.view());
  return step;
}

template <class T>
Expectation<T>::Expectation(const LayerCase<T>& layer_case)
    : x(convert<Real>(layer_case.x)),
      dy(convert<Real>(layer_case.dy)),
      parameters(layer_case.parameters()),
      forward(reference::forward(x, layer_case.options.num_features, parameters)),
      backward(reference::backward(x, dy, forward, parameters)),
      bounds(tolerance::statistics(x, forward, parameters.eps)),
      gradient_bounds(tolerance::gradient_sums(x, dy, forward, bounds)) {}

template <class T>
Real Expectation<T>::y_bound(std::size_t rank, Index n, Index channel, Index s) const {
  const auto c = static_cast<std::size_t>(channel);
  return tolerance::y<T>(bounds[c], parameters.gamma_at(channel), forward.invstd[c],
                         forward.xhat[rank].at(n, channel, s), forward.y[rank].at(n, channel, s));
}

template <class T>
Real Expectation<T>::dx_bound(std::size_t rank, Index n, Index channel, Index s) const {
  const auto c = static_cast<std::size_t>(channel);
  return tolerance::dx<T>(bounds[c], gradient_bounds[c],
                          {parameters.gamma_at(channel), forward.invstd[c], dy[rank].at(n, channel, s),
                           x[rank].at(n, channel, s) - forward.moments.mean[c], backward.dx[rank].at(n, channel, s),
                           forward.moments.count});
}

template <class T>
void expect_matches_oracle(const LayerCase<T>& layer_case, const BatchNorm& layer, const StepResult<T>& step) {
  SCOPED_TRACE(layer_case.trace());
  const Expectation<T> want(layer_case);
  const std::size_t me = my_part();
  const BatchNormOptions& options = layer_case.options;

  EXPECT_EQ(step.cache.count, want.forward.moments.count);
  if (want.forward.moments.count > 0) {
    EXPECT_TRUE(is_within_channels("mean", step.cache.mean, want.forward.moments.mean,
                                   [&](std::size_t c) { return want.bounds[c].mean; }));
    EXPECT_TRUE(is_within_channels("var", step.cache.var, want.forward.moments.var,
                                   [&](std::size_t c) { return want.bounds[c].var; }));
    EXPECT_TRUE(is_within_channels("invstd", step.cache.invstd, want.forward.invstd,
                                   [&](std::size_t c) { return want.bounds[c].invstd * want.forward.invstd[c]; }));
  }
  EXPECT_TRUE(
      is_within("y", step.y, want.forward.y[me], [&](Index n, Index c, Index s) { return want.y_bound(me, n, c, s); }));
  EXPECT_TRUE(is_within("dx", step.dx, want.backward.dx[me],
                        [&](Index n, Index c, Index s) { return want.dx_bound(me, n, c, s); }));

  if (options.affine) {
    reference::LocalGradients right{want.backward.dgamma, want.backward.dbeta};
    if (options.parameter_gradients == ParameterGradients::local) {
      right = reference::local_gradients(want.forward.xhat[me], want.dy[me]);
    }
    EXPECT_EQ(step.gradients.scope, options.parameter_gradients);
    // A rank's own sums have at most the terms of the global ones, but the mean's error enters times this rank's
    // sum(dy).
    EXPECT_TRUE(is_within_channels("dgamma", step.gradients.dgamma, right.dgamma, [&](std::size_t c) {
      const Real of_mean = want.bounds[c].mean * std::abs(right.dbeta[c]) * want.forward.invstd[c];
      return of_mean +
             tolerance::dgamma<T>(want.bounds[c], want.gradient_bounds[c], want.forward.invstd[c], right.dgamma[c]);
    }));
    EXPECT_TRUE(is_within_channels("dbeta", step.gradients.dbeta, right.dbeta, [&](std::size_t c) {
      return tolerance::dbeta<T>(want.gradient_bounds[c], right.dbeta[c]);
    }));
  } else {
    EXPECT_EQ(step.gradients.dgamma.size(), 0);
    EXPECT_EQ(step.gradients.dbeta.size(), 0);
  }

  if (!options.track_running_stats) {
    EXPECT_EQ(layer.running_mean().size(), 0);
    EXPECT_EQ(layer.running_var().size(), 0);
    return;
  }
  reference::Running running(options.num_features);
  running.update(want.forward.moments, options.momentum, options.unbiased_running_var);
  EXPECT_EQ(layer.num_batches_tracked(), running.batches);
  const Real count = static_cast<Real>(want.forward.moments.count);
  const Real momentum = options.momentum ? Real{*options.momentum} : 1;
  const Real unbias = options.unbiased_running_var && count > 1 ? count / (count - 1) : 1;
  EXPECT_TRUE(is_within_channels("running_mean", layer.running_mean(), running.mean, [&](std::size_t c) {
    return tolerance::running<T>(0, momentum, want.bounds[c].mean, 0, want.forward.moments.mean[c], running.mean[c]);
  }));
  EXPECT_TRUE(is_within_channels("running_var", layer.running_var(), running.var, [&](std::size_t c) {
    const Real fresh = want.bounds[c].var * unbias;
    return tolerance::running<T>(0, momentum, fresh, 1, want.forward.moments.var[c] * unbias, running.var[c]);
  }));
}

template <class T>
void expect_step_matches_oracle(LayerCase<T>& layer_case) {
  BatchNorm layer = make_layer(layer_case);
  const StepResult<T> step = run_step(layer, layer_case);
  expect_matches_oracle(layer_case, layer, step);
}

#define SYNCBN_INSTANTIATE(T)                                                                          \
  template LayerCase<T> make_case<T>(const inputs::Recipe&, const std::vector<Index>&);                \
  template LayerCase<T> make_case<T>(const inputs::Recipe&, const std::vector<Index>&,                 \
                                     const std::vector<std::vector<Index>>&);                          \
  template BatchNorm make_layer<T>(const LayerCase<T>&, const Communicator&);                          \
  template StepResult<T> run_step<T>(BatchNorm&, const Tensor<T>&, const Tensor<T>&);                  \
  template struct Expectation<T>;                                                                      \
  template void expect_matches_oracle<T>(const LayerCase<T>&, const BatchNorm&, const StepResult<T>&); \
  template void expect_step_matches_oracle<T>(LayerCase<T>&);
SYNCBN_INSTANTIATE(float)
SYNCBN_INSTANTIATE(double)
SYNCBN_INSTANTIATE(bfloat16)
SYNCBN_INSTANTIATE(float16)
#undef SYNCBN_INSTANTIATE

}  // namespace syncbn::testing
