// SPDX-License-Identifier: MIT
#include "sgd.hpp"

#include <cmath>

namespace syncbn::train {

namespace {

double cosine_rate(const SgdOptions& options, const StepPosition& at) {
  constexpr double kPi = 3.14159265358979323846;
  const double done =
      static_cast<double>(at.step - options.warmup_steps) / static_cast<double>(at.steps - options.warmup_steps);
  return options.learning_rate * 0.5 * (1.0 + std::cos(kPi * done));
}

double multistep_rate(const SgdOptions& options, const StepPosition& at) {
  double rate = options.learning_rate;
  for (const Index milestone : options.milestones) {
    if (at.step / at.steps_per_epoch >= milestone) rate *= options.lr_gamma;
  }
  return rate;
}

}  // namespace

const char* name_of(Schedule schedule) noexcept {
  switch (schedule) {
    case Schedule::constant:
      return "constant";
    case Schedule::cosine:
      return "cosine";
    case Schedule::multistep:
      return "multistep";
  }
  return "";
}

double learning_rate(const SgdOptions& options, const StepPosition& at) {
  const bool is_warm = at.step >= options.warmup_steps;
  double rate = options.learning_rate;
  if (options.schedule == Schedule::cosine && is_warm) rate = cosine_rate(options, at);
  if (options.schedule == Schedule::multistep) rate = multistep_rate(options, at);
  return is_warm ? rate : rate * (static_cast<double>(at.step + 1) / static_cast<double>(options.warmup_steps));
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
