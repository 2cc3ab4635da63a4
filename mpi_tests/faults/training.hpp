// SPDX-License-Identifier: MIT
// A few small layers, and passes that can tell whether a failed one has left something half done.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "syncbn/syncbn.hpp"

namespace syncbn::testing {

/// One layer with its tensors, (N 3, C, S 4), and the arguments of its passes, which a fault may spoil.
struct TrainedLayer {
  TrainedLayer(const BatchNormOptions& options, const Communicator& communicator);

  /// What no failed pass may change: statistics, outputs and gradients.
  std::vector<double> state() const;

  BatchNorm layer;
  std::vector<float> x_data, y_data, dy_data, dx_data;
  ConstTensorView x, dy;
  TensorView y, dx;
  BatchNormCache cache;
  BatchNormGradients gradients;
};

/// Stops the time of the call that fails.
class Stopwatch {
 public:
  void start() { begin_ = Clock::now(); }
  double seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point begin_ = Clock::now();
};

/// Layers of a communicator. Every pass starts the stopwatch and notes the layer's state.
class Training {
 public:
  Training(const std::vector<BatchNormOptions>& options, const Communicator& communicator, Stopwatch& watch);

  void forward(int layer);
  void begin_forward(int layer);
  void finish_forward(int layer);
  void backward(int layer);
  /// A pass forward, from the first layer to the last, and one backward.
  void step();

  /// A call of this layer's, or of another thing that is tried, begins now.
  void note(int layer);
  /// The same of a call that serves several layers, and leaves what it has finished when it fails.
  void note_many();

  TrainedLayer& at(int layer) { return layers_[static_cast<std::size_t>(layer)]; }
  int size() const { return static_cast<int>(layers_.size()); }
  /// Is the layer of the last call as it was before that?
  bool is_untouched() const;

 private:
  Stopwatch& watch_;
  std::vector<TrainedLayer> layers_;
  int last_ = 0;
  std::vector<double> before_;
};

/// Three layers, bn1 to bn3, of 6 channels.
std::vector<BatchNormOptions> three_layers();

}  // namespace syncbn::testing
