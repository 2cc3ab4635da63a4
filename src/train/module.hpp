// SPDX-License-Identifier: MIT
// What a network is made of.
#pragma once

#include <memory>
#include <vector>

#include "parameter.hpp"
#include "syncbn/batch_norm.hpp"
#include "units.hpp"

namespace syncbn::train {

enum class Mode { train, eval };

enum class InputGradient { wanted, unwanted };

/// What one step knows: the mode, and this rank's units of the global batch (eval: any fixed cut of the samples).
struct Pass {
  Mode mode = Mode::train;
  std::vector<SampleRange> units;
};

/// What a module (or a tree of modules) is trained through. Pointers live as long as the module.
template <class T>
struct Trainables {
  std::vector<Parameter<T>*> parameters;
  std::vector<BatchNorm*> norms;
};

/// A differentiable function of a batch. Modules own their outputs; a caller's tensors must stay alive and unchanged
/// until backward() has run.
///
/// Apart from batch norm, a module computes unit by unit: a unit's results are the same bits on whatever rank it is.
/// Batch norm communicates, so forward(train) and backward() are collective over its group; ranks without samples take
/// part.
template <class T>
class Module {
 public:
  Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  virtual ~Module() = default;

  virtual const Tensor<T>& forward(const Tensor<T>& x, const Pass& pass) = 0;

  /// After forward() with Mode::train of the same pass. Fills the gradient slots of the parameters.
  /// @return dx, or an unspecified tensor if it is unwanted.
  virtual const Tensor<T>& backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) = 0;

  /// Appends what can be trained, always in the same order.
  virtual void collect(Trainables<T>& trainables) { static_cast<void>(trainables); }
};

/// One module after the other.
template <class T>
class Sequential : public Module<T> {
 public:
  void add(std::unique_ptr<Module<T>> module) { modules_.push_back(std::move(module)); }

  const Tensor<T>& forward(const Tensor<T>& x, const Pass& pass) override {
    const Tensor<T>* at = &x;
    for (auto& module : modules_) at = &module->forward(*at, pass);
    return *at;
  }
  const Tensor<T>& backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) override {
    const Tensor<T>* at = &dy;
    for (auto module = modules_.rbegin(); module != modules_.rend(); ++module) {
      const bool is_first = module + 1 == modules_.rend();
      at = &(*module)->backward(*at, pass, is_first ? want : InputGradient::wanted);
    }
    return *at;
  }
  void collect(Trainables<T>& trainables) override {
    for (auto& module : modules_) module->collect(trainables);
  }

 private:
  std::vector<std::unique_ptr<Module<T>>> modules_;
};

}  // namespace syncbn::train
