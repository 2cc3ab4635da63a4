// SPDX-License-Identifier: MIT
// Softmax cross-entropy.
#pragma once

#include <cstdint>

#include "buffer.hpp"
#include "units.hpp"

namespace syncbn::train {

/// Loss of one unit: sum over its samples of -log softmax(logits)[label], in double, in the order of the samples.
/// Local.
/// @param logits       (N, classes) of the rank; `unit` says which rows.
/// @param labels       (N) of the rank.
/// @param batch        Samples of the global batch: the loss is their mean, so dlogits is divided by it.
/// @param dlogits      Rows of the unit are written; the caller has sized it as logits.
template <class T>
double softmax_cross_entropy(const Tensor<T>& logits, const std::uint8_t* labels, const SampleRange& unit, Index batch,
                             Tensor<T>& dlogits);

/// How many of the rows have their largest logit (the first one if equal) at the label.
template <class T>
Index count_correct(const Tensor<T>& logits, const std::uint8_t* labels);

}  // namespace syncbn::train
