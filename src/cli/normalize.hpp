// SPDX-License-Identifier: MIT
// The layer on tensors in .npy files, each rank with its rows.
#pragma once

#include <optional>
#include <string>

#include <mpi.h>

#include "syncbn/options.hpp"
#include "syncbn/tensor_view.hpp"

namespace syncbn::cli {

/// Where the statistics come from, and what backward() takes them for.
enum class NormalizeMode {
  train,   ///< The batch of all ranks.
  eval,    ///< The running statistics; no backward pass.
  local,   ///< Each rank's own rows: a layer per rank.
  frozen,  ///< The running statistics, constants in the backward pass.
};

/// The command line of `syncbn normalize`. Empty file names: not given.
struct NormalizeOptions {
  std::string input, residual, grad_output, gamma, beta, running_mean, running_var, out;
  std::string shards;      ///< "5,0,11"; empty: near-even.
  std::string group_size;  ///< Of the ranks that share statistics in mode train: a number, "node", or empty: all.
  NormalizeMode mode = NormalizeMode::train;
  Activation activation = Activation::none;
  Layout layout = Layout::channels_first;
  double eps = 1e-5;
  std::optional<double> momentum = 0.1;
  bool biased_running_var = false;
  Reduction reduction = Reduction::reproducible;
  int threads = 1;  ///< Of each rank.
  ParameterGradients param_grad = ParameterGradients::global;
};

/// Reads, runs the layer, writes; rank 0 prints what was done. Either all results appear in `options.out` or none.
/// Collective over `comm`. Throws AgreedFailure, or the library's errors, on all ranks.
void normalize(const NormalizeOptions& options, MPI_Comm comm);

}  // namespace syncbn::cli
