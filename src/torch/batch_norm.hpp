// SPDX-License-Identifier: MIT
// Passes of a layer over PyTorch's tensors: CPU, f32, f64, bf16, f16, contiguous or channels-last. layer and cache are handles.
#pragma once

#include <tuple>

#include "torch/handles.hpp"

namespace syncbn_torch {

using MaybeTensor = c10::optional<at::Tensor>;

/// What normalize() does.
enum class Kind : int64_t {
  train = 0,   ///< With the batch's statistics; updates the running ones and num_batches_tracked. Collective.
  frozen = 1,  ///< With the running statistics, constants to the backward pass. Local.
  again = 2,   ///< Once more, with the cache's statistics. Local.
};

/// y, in x's memory format; and the same with a backward pass for autograd.
at::Tensor normalize(const at::Tensor& layer, const at::Tensor& cache, const at::Tensor& x, const MaybeTensor& weight,
                     const MaybeTensor& bias, const MaybeTensor& running_mean, const MaybeTensor& running_var,
                     const MaybeTensor& num_batches_tracked, int64_t kind);
at::Tensor normalize_with_gradient(const at::Tensor& layer, const at::Tensor& cache, const at::Tensor& x,
                                   const MaybeTensor& weight, const MaybeTensor& bias, const MaybeTensor& running_mean,
                                   const MaybeTensor& running_var, const MaybeTensor& num_batches_tracked,
                                   int64_t kind);

/// dx, dweight, dbias; those not wanted are undefined. Collective after forward_train.
std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& layer, const at::Tensor& cache,
                                                        const at::Tensor& x, const at::Tensor& dy,
                                                        const MaybeTensor& weight, bool wants_dx,
                                                        bool wants_parameters);

/// (C) f64: the cache's mean (0), biased var (1) or invstd (2); and the values per channel in the global batch.
at::Tensor statistics(const at::Tensor& cache, int64_t which);
int64_t count(const at::Tensor& cache);

/// Of extents and all bytes: the same for a tensor and its repetition, another one for others, as good as surely.
int64_t fingerprint(const at::Tensor& x);

}  // namespace syncbn_torch
