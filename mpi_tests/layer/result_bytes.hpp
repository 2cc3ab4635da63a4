// SPDX-License-Identifier: MIT
// Everything that a training step leaves behind, as bytes to compare.
#pragma once

#include <cstring>
#include <vector>

#include "layer/layer_case.hpp"

namespace syncbn::testing {

using Bytes = std::vector<unsigned char>;

inline void append_bytes(Bytes& bytes, const void* data, std::size_t size) {
  if (size == 0) return;
  const std::size_t begin = bytes.size();
  bytes.resize(begin + size);
  std::memcpy(&bytes[begin], data, size);
}
template <class T>
void append_bytes(Bytes& bytes, const std::vector<T>& values) {
  append_bytes(bytes, values.data(), values.size() * sizeof(T));
}
inline void append_bytes(Bytes& bytes, const ChannelVector& values) { append_bytes(bytes, values_of(values)); }

/// running_mean, running_var and num_batches_tracked.
inline Bytes state_bytes(const BatchNorm& layer) {
  Bytes bytes;
  append_bytes(bytes, layer.running_mean());
  append_bytes(bytes, layer.running_var());
  const Index batches = layer.num_batches_tracked();
  append_bytes(bytes, &batches, sizeof batches);
  return bytes;
}

/// What must be equal on all ranks: the batch's statistics, the parameters' gradients (unless they are local), the state.
inline Bytes channel_bytes(const BatchNorm& layer, const BatchNormCache& cache, const BatchNormGradients& gradients) {
  Bytes bytes = state_bytes(layer);
  append_bytes(bytes, &cache.count, sizeof cache.count);
  for (const auto* values : {&cache.mean, &cache.mean_lo, &cache.var, &cache.invstd}) append_bytes(bytes, *values);
  if (gradients.scope == ParameterGradients::local) return bytes;
  append_bytes(bytes, gradients.dgamma);
  append_bytes(bytes, gradients.dbeta);
  return bytes;
}

/// All that one step gave on this rank: y and dx, too.
template <class T>
Bytes step_bytes(const BatchNorm& layer, const StepResult<T>& step) {
  Bytes bytes = channel_bytes(layer, step.cache, step.gradients);
  append_bytes(bytes, step.y.values);
  append_bytes(bytes, step.dx.values);
  return bytes;
}

/// Collective over MPI_COMM_WORLD.
inline bool is_same_on_all_ranks(const Bytes& bytes) { return is_same_on_all_ranks(bytes.data(), bytes.size()); }

/// An all-gather of bytes such as a program without MPI would give: here MPI is the messenger.
inline void gather_with_mpi(const void* mine, std::size_t bytes, void* all) {
  const int count = static_cast<int>(bytes);
  MPI_Allgather(mine, count, MPI_BYTE, all, count, MPI_BYTE, MPI_COMM_WORLD);
}

}  // namespace syncbn::testing
