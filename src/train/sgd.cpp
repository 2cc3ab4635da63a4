// SPDX-License-Identifier: MIT
#include "sgd.hpp"

#include <cmath>

namespace syncbn::train {

double learning_rate(const SgdOptions& options, Index step, Index steps) {
  if (options.schedule == Schedule::constant) return options.learning_rate;
  constexpr double kPi = 3.14159265358979323846;
  const double done = static_cast<double>(step) / static_cast<double>(steps);
  return options.learning_rate * 0.5 * (1.0 + std::cos(kPi * done));
}

template <class T>
Sgd<T>::Sgd(const SgdOptions& options, const std::vector<Parameter<T>*>& parameters)
    : options_(options), parameters_(parameters) {
  for (const Parameter<T>* parameter : parameters_) {
    velocity_.emplace_back(static_cast<std::size_t>(parameter->size), T(0));
  }
}

template class Sgd<float>;
template class Sgd<double>;

}  // namespace syncbn::train
