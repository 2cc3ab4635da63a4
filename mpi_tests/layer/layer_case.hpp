// SPDX-License-Identifier: MIT
// One training step of a layer on one global batch, and everything that must be true of it.
#pragma once

#include <string>
#include <vector>

#include "support/compare.hpp"
#include "support/inputs.hpp"
#include "support/reference.hpp"
#include "support/tensor.hpp"
#include "support/tolerance.hpp"
#include "syncbn/syncbn.hpp"

namespace syncbn::testing {

/// A global batch, the loss's gradient at y, and the layer that shall see them.
template <class T>
struct LayerCase {
  BatchNormOptions options;
  Batch<T> x;
  Batch<T> dy;
  std::vector<double> gamma;  ///< Empty if not affine.
  std::vector<double> beta;
  std::string description;  ///< Seed, split, shape: enough to make it again.

  Tensor<T>& my_x() { return x[static_cast<std::size_t>(world_rank())]; }
  Tensor<T>& my_dy() { return dy[static_cast<std::size_t>(world_rank())]; }
  reference::Parameters parameters() const { return {gamma, beta, options.eps}; }
  std::string trace() const {
    return description + ", " + name_of(DataTypeOf<T>::value) + ", rank " + std::to_string(world_rank()) + " of " +
           std::to_string(world_size());
  }
};

/// counts[r] samples for rank r; dy is gaussian, gamma in [0.5, 1.5] with its sign alternating, beta in [-1, 1].
template <class T>
LayerCase<T> make_case(const inputs::Recipe& recipe, const std::vector<Index>& counts);

/// The same with spatial extents of its own for every rank.
template <class T>
LayerCase<T> make_case(const inputs::Recipe& recipe, const std::vector<Index>& counts,
                       const std::vector<std::vector<Index>>& spatial);

/// A layer with the case's options and parameters. Collective over the group.
template <class T>
BatchNorm make_layer(const LayerCase<T>& layer_case, const Communicator& group);
template <class T>
BatchNorm make_layer(const LayerCase<T>& layer_case) {
  return make_layer(layer_case, Communicator(MPI_COMM_WORLD));
}

/// What the layer gave on this rank.
template <class T>
struct StepResult {
  Tensor<T> y;
  Tensor<T> dx;
  BatchNormCache cache;
  BatchNormGradients gradients;
};

/// forward_train and backward of this rank's part. Collective.
template <class T>
StepResult<T> run_step(BatchNorm& layer, const Tensor<T>& x, const Tensor<T>& dy);
template <class T>
StepResult<T> run_step(BatchNorm& layer, LayerCase<T>& layer_case) {
  return run_step(layer, layer_case.my_x(), layer_case.my_dy());
}

/// The oracle's view of a case.
template <class T>
struct Expectation {
  explicit Expectation(const LayerCase<T>& layer_case);

  Batch<Real> x;
  Batch<Real> dy;
  reference::Parameters parameters;
  reference::Forward forward;
  reference::Backward backward;
  std::vector<tolerance::ChannelBound> bounds;
  std::vector<tolerance::GradientBound> gradient_bounds;

  Real y_bound(std::size_t rank, Index n, Index c, Index s) const;
  Real dx_bound(std::size_t rank, Index n, Index c, Index s) const;
};

/// Expects mean, var, invstd, count, y, dx, dgamma, dbeta and, after this one step from fresh, the running statistics
/// within the rounding bounds of the oracle, on this rank.
template <class T>
void expect_matches_oracle(const LayerCase<T>& layer_case, const BatchNorm& layer, const StepResult<T>& step);

/// Makes the layer, runs one step, and expects the above.
template <class T>
void expect_step_matches_oracle(LayerCase<T>& layer_case);

}  // namespace syncbn::testing
