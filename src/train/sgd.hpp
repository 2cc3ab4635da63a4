// SPDX-License-Identifier: MIT
// Stochastic gradient descent with momentum.
#pragma once

#include <vector>

#include "parameter.hpp"

namespace syncbn::train {

/// How the rate goes on behind the warmup.
enum class Schedule {
  constant,
  cosine,     ///< Half a cosine, from learning_rate down to (almost) 0 at the last step.
  multistep,  ///< Multiplied by lr_gamma when milestones[i] epochs are done, for each i: PyTorch's MultiStepLR.
};

/// "constant", "cosine", "multistep".
const char* name_of(Schedule schedule) noexcept;

struct SgdOptions {
  double learning_rate = 0.05;
  double momentum = 0.9;       ///< Weight of the previous velocity, in [0, 1).
  double weight_decay = 1e-4;  ///< Added as weight_decay * w to the gradient of weights.
  Schedule schedule = Schedule::cosine;
  Index warmup_steps = 0;  ///< Over so many steps the rate rises linearly: 1/warmup_steps of it in the first one.
  std::vector<Index> milestones;  ///< Of multistep: epochs, 1 or more, increasing.
  double lr_gamma = 0.1;          ///< Of multistep.
};

/// Where a step stands in its training.
struct StepPosition {
  Index step = 0;  ///< From 0.
  Index steps = 0;
  Index steps_per_epoch = 1;
};

double learning_rate(const SgdOptions& options, const StepPosition& at);

///   v = momentum * v + (gradient + weight_decay * w)      w = w - rate * v
///
/// in the parameter's type, as PyTorch's SGD. Equal gradients on all ranks keep the parameters equal.
template <class T>
class Sgd {
 public:
  Sgd(const SgdOptions& options, const std::vector<Parameter<T>*>& parameters);

  /// v, parameter by parameter.
  std::vector<std::vector<T>>& velocity() noexcept { return velocity_; }
  const std::vector<std::vector<T>>& velocity() const noexcept { return velocity_; }

  /// @param gradient  gradient(parameter number, position): of the global batch.
  template <class Gradient>
  void step(double rate, const Gradient& gradient) {
    for (std::size_t p = 0; p < parameters_.size(); ++p) {
      Parameter<T>& parameter = *parameters_[p];
      const T decay = parameter.decays ? static_cast<T>(options_.weight_decay) : T(0);
      for (Index i = 0; i < parameter.size; ++i) {
        T& v = velocity_[p][static_cast<std::size_t>(i)];
        T& w = parameter.values[i];
        v = static_cast<T>(options_.momentum) * v + (static_cast<T>(gradient(p, i)) + decay * w);
        w -= static_cast<T>(rate) * v;
      }
    }
  }

 private:
  SgdOptions options_;
  std::vector<Parameter<T>*> parameters_;
  std::vector<std::vector<T>> velocity_;
};

}  // namespace syncbn::train
