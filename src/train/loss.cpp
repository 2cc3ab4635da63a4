// SPDX-License-Identifier: MIT
#include "loss.hpp"

#include <algorithm>
#include <cmath>

namespace syncbn::train {

template <class T>
double softmax_cross_entropy(const Tensor<T>& logits, const std::uint8_t* labels, const SampleRange& unit, Index batch,
                             Tensor<T>& dlogits) {
  const Index classes = logits.shape.size();
  double loss = 0;
  for (Index n = unit.first; n < unit.first + unit.count; ++n) {
    const T* z = logits.sample(n);
    T* dz = dlogits.sample(n);
    const double top = *std::max_element(z, z + classes);
    double sum = 0;
    for (Index k = 0; k < classes; ++k) sum += std::exp(static_cast<double>(z[k]) - top);
    for (Index k = 0; k < classes; ++k) {
      const double probability = std::exp(static_cast<double>(z[k]) - top) / sum;
      dz[k] = static_cast<T>((probability - (k == labels[n] ? 1.0 : 0.0)) / static_cast<double>(batch));
    }
    loss += std::log(sum) - (static_cast<double>(z[labels[n]]) - top);
  }
  return loss;
}

template <class T>
Index count_correct(const Tensor<T>& logits, const std::uint8_t* labels) {
  const Index classes = logits.shape.size();
  Index correct = 0;
  for (Index n = 0; n < logits.samples; ++n) {
    const T* z = logits.sample(n);
    // With a NaN anywhere nothing is recognized.
    const bool has_nan = std::any_of(z, z + classes, [](T value) { return std::isnan(value); });
    if (!has_nan && std::max_element(z, z + classes) - z == labels[n]) ++correct;
  }
  return correct;
}

template double softmax_cross_entropy(const Tensor<float>&, const std::uint8_t*, const SampleRange&, Index,
                                      Tensor<float>&);
template double softmax_cross_entropy(const Tensor<double>&, const std::uint8_t*, const SampleRange&, Index,
                                      Tensor<double>&);
template Index count_correct(const Tensor<float>&, const std::uint8_t*);
template Index count_correct(const Tensor<double>&, const std::uint8_t*);

}  // namespace syncbn::train
