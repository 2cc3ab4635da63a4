// SPDX-License-Identifier: MIT
// Synchronized batch normalization: normalize with the statistics of the whole batch, wherever its samples are.
#pragma once

#include <memory>
#include <vector>

#include "syncbn/channel_vector.hpp"
#include "syncbn/export.h"
#include "syncbn/options.hpp"
#include "syncbn/pass_costs.hpp"
#include "syncbn/tensor_view.hpp"

namespace syncbn {

class Communicator;

/// What a forward pass leaves for backward(), and the statistics it used.
struct BatchNormCache {
  enum class Mode : std::int32_t { none, train, frozen };

  Mode mode = Mode::none;
  ConstTensorView x;  ///< The input, borrowed: it must be alive and unchanged in backward(). May be pointed elsewhere.
  ConstTensorView y;  ///< With an activation: the output, borrowed likewise. Else none.
  bool x_overwritten = false;  ///< y was written over x, so backward() has no x (set x to a kept copy and clear this).
  Index count = 0;             ///< M: values per channel in the global batch (train), on this rank (frozen).
  std::vector<double> mean;    ///< (C)
  /// (C) What the mean lost when it was rounded; 0 with Reduction::fast. mean + mean_lo is good to some 2^-100 for f32, bf16,
  /// f16 and 2-D f64; for f64 planes of S positions to the rounding of their own sums, some S*2^-53 of sigma.
  std::vector<double> mean_lo;
  std::vector<double> var;     ///< (C) biased: divided by M.
  std::vector<double> invstd;  ///< (C) 1 / sqrt(var + eps)
};

/// Gradients of the parameters, (C) each, empty if the layer is not affine.
struct BatchNormGradients {
  ChannelVector dgamma;                                   ///< sum(dy * xhat)
  ChannelVector dbeta;                                    ///< sum(dy)
  ParameterGradients scope = ParameterGradients::global;  ///< Over the whole batch, or over this rank's samples.
};

/// A batch normalization layer over a group of ranks.
///
/// Per channel c, with M values of c in the global batch (all ranks, all positions):
///
///   mean = sum(x)/M    var = sum((x-mean)^2)/M    xhat = (x-mean)/sqrt(var+eps)    y = gamma*xhat + beta
///
/// With options.activation and a residual z: y = relu(gamma*xhat + beta + z), in the same pass over data.
///
/// Source: Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1 (forward) and
/// section 3 (backward).
///
/// Tensors are (N, C), (N, C, *spatial) or (N, *spatial, C), dense, of f32, bf16, f16 (with f32 parameters) or f64 (with
/// f64 parameters), the same on all ranks. N and the spatial extents may differ between ranks, and N may be 0. An empty
/// shard may be a default-made view. A batch that is empty on all ranks changes nothing. Statistics and sums are double
/// for all types; y and dx are worked out in double for f32 and f64, in float for 16 bits, and rounded once to their type.
///
/// Accuracy, against the exact result, in units in the last place of the largest term of the formula: f32 y and
/// dx within 2, mean and var correctly rounded; bf16 and f16 likewise in their own type; f64 y and dx some S ulp for planes of S
/// positions where mean is not large against sigma, and 4 and 13 for 2-D (mpi_tests/layer/accuracy_test.cpp has the bounds).
/// Subnormal numbers count: a program that has the processor flush them to zero gets other bits for tiny data.
/// Limits: 2^24 channels, 2^26 samples in the global batch (more throw StateError on all ranks).
///
/// Calls named collective must be made by all ranks of the group in the same order. If one rank passes a wrong
/// argument, all ranks get the same error, and running statistics and outputs stay as they were.
///
/// Not thread-safe, const calls included: one call at a time per object. Different objects may be used by different threads if MPI was
/// initialized with MPI_THREAD_MULTIPLE.
class SYNCBN_API BatchNorm {
 public:
  /// gamma = 1, beta = 0, running_mean = 0, running_var = 1, as PyTorch. Collective. Throws OptionError or
  /// MismatchError on all ranks if an option is wrong or differs between ranks.
  explicit BatchNorm(const BatchNormOptions& options);  // this process alone
  BatchNorm(const BatchNormOptions& options, const Communicator& communicator);
  ~BatchNorm();
  BatchNorm(BatchNorm&&) noexcept;
  BatchNorm& operator=(BatchNorm&&) noexcept;

  /// Normalizes every channel with the statistics of the global batch, then scales and shifts it; updates the running
  /// statistics and num_batches_tracked.
  ///
  /// @param x  This rank's samples.
  /// @param y  Shape, layout and type of x, overwritten. May be x itself; then this cache cannot serve backward().
  /// @param residual  z, the same again, added to the result in front of the activation; may be y; none: nothing added. (Each
  ///                  rank decides for itself.)
  /// @return   (or `cache`, whose storage is reused) the statistics and what backward() needs.
  ///
  /// Collective: one all-reduce; none if the group is one rank.
  /// Cost:       reads x twice (and the residual once), writes y once.
  /// Numerics:   sums in double about each sample's first value, over samples in bins: src/DESIGN.md 3 and 4.
  /// Throws:     ShapeError, MismatchError, NonFiniteError, MpiError: the same on all ranks, before anything is written.
  BatchNormCache forward_train(ConstTensorView x, TensorView y, ConstTensorView residual = {});
  void forward_train(ConstTensorView x, TensorView y, BatchNormCache& cache, ConstTensorView residual = {});

  /// forward_train() in two halves, so that the program can do something else, other layers' passes for instance, while the
  /// message is on its way. begin_* sums and sends, finish_* waits and writes y, the cache and the running statistics; tensors
  /// and cache must stay as they are in between. A wrong argument is an error of finish_*, on all ranks. Layers may be
  /// finished in any order that is the same on all ranks; of one layer only one pass may be in flight (else StateError, on
  /// the calling rank). A layer that is destroyed in between, on all ranks, loses the pass; other layers go on, and the
  /// message's memory stays until the process ends. Collective, each.
  void begin_forward_train(ConstTensorView x, TensorView y, BatchNormCache& cache, ConstTensorView residual = {});
  void finish_forward_train();

  /// Lets the message of a pass in flight go on, without waiting; true if finish_*() will not wait. For programs that compute
  /// for long between begin and finish: MPI moves messages only while it is called, and an all-reduce of many ranks needs
  /// some 20 calls to hide behind the computing (an all-gather none: communicator.hpp, Exchange).
  bool progress();

  /// Normalizes with the running statistics (without them: with the statistics of this rank's own batch). Local: no
  /// message. y may be x.
  void forward_eval(ConstTensorView x, TensorView y, ConstTensorView residual = {}) const;

  /// As forward_eval with running statistics, for a layer whose statistics are constants of the training: nothing is
  /// updated, and backward() of the cache passes gradients straight through. Local. y may be x, and then
  /// backward_input() still works. Throws StateError if the layer does not track running statistics.
  BatchNormCache forward_frozen(ConstTensorView x, TensorView y, ConstTensorView residual = {}) const;
  void forward_frozen(ConstTensorView x, TensorView y, BatchNormCache& cache, ConstTensorView residual = {}) const;

  /// y once more, with the statistics of `cache` (of forward_train() or forward_frozen()): for programs that throw activations
  /// away and make them again in the backward pass. The same x gives the same bits. No message, no update of anything but
  /// the cache, which points at this x and y afterwards. Local. Throws StateError if no forward pass has filled the cache.
  void forward_again(BatchNormCache& cache, ConstTensorView x, TensorView y, ConstTensorView residual = {}) const;

  /// Gradients of the loss with respect to x, gamma and beta.
  ///
  ///   dx = gamma*invstd * ( dy - mean(dy) - xhat * mean(dy*xhat) ),   the means over the global batch
  ///
  /// which is the full batch's closed form; for a frozen cache dx = gamma*invstd * dy. Behind a ReLU dy counts where y > 0
  /// (and where y is NaN, as in PyTorch).
  ///
  /// @param cache  From forward_train() or forward_frozen() of this layer.
  /// @param dy     Shape, layout and type of x.
  /// @param dx     The same, overwritten; may be dy itself; TensorView() if it is not wanted.
  /// @param dresidual  The residual's gradient, which is dy (behind a ReLU: where y > 0); may be dy; none if not wanted.
  /// @return       (or `gradients`, whose storage is reused) dgamma and dbeta, as options.parameter_gradients says.
  ///
  /// Collective: one all-reduce, whatever this rank wants to have; none if the group is one rank. For a frozen cache no
  ///             message, and dgamma and dbeta are this rank's sums whatever the options say (`scope` tells): all ranks
  ///             must bring caches of one mode.
  /// Cost:       reads x and dy twice, writes dx once. Behind a ReLU it reads x, dy and y, writes the masked gradient to
  ///             dresidual (else to dx), reads that and x, and writes dx; so dx may then not be x unless dresidual is given.
  /// Throws:     ShapeError, StateError, MismatchError, NonFiniteError, MpiError: the same on all ranks, before anything
  ///             is written (behind a ReLU: but dresidual, or without it dx, whose contents are lost).
  BatchNormGradients backward(const BatchNormCache& cache, ConstTensorView dy, TensorView dx,
                              TensorView dresidual = {});
  void backward(const BatchNormCache& cache, ConstTensorView dy, TensorView dx, BatchNormGradients& gradients,
                TensorView dresidual = {});

  /// backward() without parameter gradients. The same message: ranks may mix the two.
  void backward_input(const BatchNormCache& cache, ConstTensorView dy, TensorView dx, TensorView dresidual = {});

  /// backward() and backward_input() in two halves, as begin_forward_train(). The cache, too, must stay as it is. Behind a
  /// ReLU begin_backward() writes the masked gradient already. For a frozen cache nothing is sent, and a wrong argument is
  /// thrown by begin_*, on this rank.
  void begin_backward(const BatchNormCache& cache, ConstTensorView dy, TensorView dx, BatchNormGradients& gradients,
                      TensorView dresidual = {});
  void begin_backward_input(const BatchNormCache& cache, ConstTensorView dy, TensorView dx, TensorView dresidual = {});
  void finish_backward();

  const BatchNormOptions& options() const noexcept;
  const Communicator& communicator() const noexcept;

  /// Parameters and state, (C) each; empty when the options leave them out. They are this rank's copies: keep them
  /// equal on all ranks (equal initial values and equal updates do that).
  ChannelVector& gamma() noexcept;
  ChannelVector& beta() noexcept;
  ChannelVector& running_mean() noexcept;
  ChannelVector& running_var() noexcept;
  const ChannelVector& gamma() const noexcept;
  const ChannelVector& beta() const noexcept;
  const ChannelVector& running_mean() const noexcept;
  const ChannelVector& running_var() const noexcept;
  Index num_batches_tracked() const noexcept;  ///< Training steps that saw at least one sample.
  void set_num_batches_tracked(Index count);   ///< Throws StateError if count < 0.

  /// What training passes have cost this rank since construction or reset_costs(): seconds in sums, message and element
  /// pass, and bytes sent (pass_costs.hpp). All 0 without options.measures_costs. Local. A pass in flight is not in it yet.
  const LayerCosts& costs() const noexcept;
  void reset_costs() noexcept;

 private:
  class SYNCBN_HIDDEN Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace syncbn
