// SPDX-License-Identifier: MIT
// What a layer is made with.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "syncbn/tensor_view.hpp"

namespace syncbn {

class DriftProbe;

/// How sums over samples are formed, on a rank and between ranks.
enum class Reduction : std::int32_t {
  /// (count, mean, M2) merged in double: accurate for any mean/sigma; the last bits depend on the split of the batch.
  fast = 0,

  /// Binned sums: the same bits for every split of the batch over ranks, order of samples, thread count, MPI library and
  /// instruction set. Exact enough that mean and var are the correctly rounded f32 numbers nearly always.
  /// Range of f64 data: |x| from about 1e-145 to 1e150, whose squares neither overflow nor lose bits; other data: all.
  /// Source: Demmel & Nguyen 2015, "Parallel Reproducible Summation", IEEE Trans. Computers 64(7).
  reproducible = 1,
};

/// What backward() returns as dgamma and dbeta.
enum class ParameterGradients : std::int32_t {
  global = 0,  ///< Sums over the whole batch, the same on every rank: what full-batch training would have.
  local = 1,   ///< Sums over this rank's samples, for trainers that reduce all gradients themselves.
};

/// What is applied to the normalized, shifted (and residual-added) values.
enum class Activation : std::int32_t {
  none = 0,
  relu = 1,  ///< max(., 0); a NaN stays. The backward pass needs y then: BatchNormCache::y.
};

/// What a NaN or an infinity in x or dy does, in every pass that forms sums (not in eval and frozen forward passes, which
/// only use running statistics).
enum class NonFinitePolicy : std::int32_t {
  propagate = 0,  ///< Its channel becomes NaN, statistics included; other channels are as if it were not there.
  error = 1,      ///< NonFiniteError on all ranks, naming the first rank and channel; nothing is written.
};

/// Must be equal on all ranks of the communicator (name included); the constructor checks it. Threads, measures_costs
/// and drift probe are each rank's own.
struct BatchNormOptions {
  Index num_features = 0;  ///< C; 1 to 2^24.
  double eps = 1e-5;  ///< Added to the variance; finite, >= 0. With 0, a channel of variance 0 gives y = beta, dx = 0.

  /// Weight of the newest batch in running_mean and running_var, in [0, 1]; nullopt: cumulative average of all batches.
  std::optional<double> momentum = 0.1;

  bool affine = true;                ///< Has gamma and beta; else y = xhat and backward returns no parameter gradients.
  bool track_running_stats = true;   ///< Keeps running statistics; else eval uses those of the rank's own batch.
  bool unbiased_running_var = true;  ///< running_var takes var * M/(M-1), M the global count (as PyTorch); else var.

  Activation activation = Activation::none;  ///< Fused into the element pass.
  ParameterGradients parameter_gradients = ParameterGradients::global;

  /// Of gamma, beta and running statistics: f32 with f32, bf16 and f16 data, f64 with f64.
  DataType parameter_type = DataType::f32;
  Reduction reduction = Reduction::reproducible;
  NonFinitePolicy non_finite = NonFinitePolicy::propagate;

  /// Threads for the passes over data, 1 to 1024; may differ between ranks. 1 where the library was built without OpenMP.
  /// (Reduction::fast uses them for the element passes only.)
  int threads = 1;

  std::string name = "bn";  ///< Stands in error messages.

  /// Takes the time of training passes, part by part, for BatchNorm::costs(): some ten looks at the clock a step, a third
  /// of a microsecond; off: a branch each. The same bits either way.
  bool measures_costs = false;

  /// Gets a record of each training forward pass: how far this rank's statistics are from the batch's, and what the
  /// message took. See drift_probe.hpp.
  std::shared_ptr<DriftProbe> drift_probe = nullptr;
};

}  // namespace syncbn
