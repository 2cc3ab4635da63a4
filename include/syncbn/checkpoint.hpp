// SPDX-License-Identifier: MIT
// Layers' parameters and statistics in files that PyTorch's world reads and writes: safetensors, with PyTorch's names.
#pragma once

#include <string>
#include <vector>

#include "syncbn/batch_norm.hpp"
#include "syncbn/export.h"

namespace syncbn {

/// A layer, and what stands in front of its tensors' names: "layer1.0.bn1" for layer1.0.bn1.weight, .bias, .running_mean, .running_var
/// and .num_batches_tracked; empty for the names alone.
struct NamedLayer {
  std::string prefix;
  BatchNorm* layer = nullptr;
};

/// Writes a file with the state of these layers: weight (gamma) and bias where a layer is affine, running statistics and
/// num_batches_tracked (I64) where it tracks them; F32 or F64, as the layer's parameters are. The file appears whole or not at all.
/// Local: state is equal on all ranks, so one of them writes. Throws StateError (a name twice, or the file cannot be written).
/// Format: https://github.com/huggingface/safetensors (8 bytes of length, JSON, data).
SYNCBN_API void save_safetensors(const std::string& path, const std::vector<NamedLayer>& layers);

/// Takes the state of these layers from a file, of this library or any other that writes the format, among whatever else is in it.
/// Numbers of F64, F32, BF16 and F16 become the layer's parameter type. num_batches_tracked may be missing (PyTorch before 0.4.1) and
/// is left alone then. Local: every rank loads. Throws StateError with nothing changed: a file that is not one, is cut off, lies
/// about its sizes, or does not have what a layer needs.
SYNCBN_API void load_safetensors(const std::string& path, const std::vector<NamedLayer>& layers);

}  // namespace syncbn
