// SPDX-License-Identifier: MIT
// How far the ranks' own statistics are from those of the whole batch, call by call, in any program that uses the layer.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>

#include "syncbn/export.h"
#include "syncbn/tensor_view.hpp"

namespace syncbn {

/// One training forward pass of one layer, as one rank saw it. NaN where nothing can be said: this rank has no samples,
/// or the batch has values that are not finite.
struct DriftRecord {
  std::string_view layer;  ///< BatchNormOptions::name; valid during the call.
  int rank = 0;
  int ranks = 1;          ///< That share statistics. 1: this layer is not synchronized, and drifts from itself by 0.
  std::int64_t call = 0;  ///< Of this layer's training forward passes, from 1.
  Index own_count = 0;    ///< Values per channel on this rank.
  Index count = 0;        ///< Values per channel of the batch.

  /// Root mean square over the channels of (own mean - mean) / sqrt(var + eps): how far local batch norm would have
  /// shifted its output, in standard deviations.
  double mean_drift = 0;
  /// Root mean square over the channels of (own var - var) / (var + eps).
  double var_drift = 0;
  Index worst_channel = 0;      ///< Where the means differ most.
  double worst_mean_drift = 0;  ///< There, with its sign.

  double message_seconds = 0;  ///< From the sums' start on their way to their arrival, computing in between included.
  double wait_seconds = 0;     ///< Of that, what the layer stood still for: the price of synchronizing.
  double probe_seconds = 0;    ///< What making this record took: the own moments and the comparison.
};

/// Gets records. A layer calls it on its own rank, in the thread that finishes the pass, after y has been written.
///
/// Cost of a call that is wanted: one more finish of the sums and a pass over C channels, whatever N and S are. Measured
/// on Zen 4: 1.6 us for 4x64x56x56 and 4.5 us for 32x256x14x14, 0.6 and 0.7 % of the forward pass of one rank; the time
/// with a probe that wants every call, in turns with that without, is 1.00 and 1.01 times it, which is what two layers
/// without one differ by. For 8x128 (2-D), 1.7 us of 3.6: there a probe should want few calls.
class SYNCBN_API DriftProbe {
 public:
  virtual ~DriftProbe() = default;
  /// Is this call of a layer wanted? One that is not costs nothing.
  virtual bool wants(std::int64_t call) const { return call > 0; }
  /// Exceptions become those of the layer's call, on this rank alone.
  virtual void record(const DriftRecord& record) = 0;
};

/// Writes records as lines of JSON, each flushed: {"layer":"bn1","rank":0,"ranks":4,"call":1,"own_count":2,"count":8,
/// "mean_drift":0.3,"var_drift":0.6,"worst_channel":5,"worst_mean_drift":-0.9,"message_us":41.5,"wait_us":12.0}; null for
/// NaN. One for all layers of a rank; ranks need files of their own. Not for several threads at once.
class SYNCBN_API DriftLog final : public DriftProbe {
 public:
  /// Makes the file, or empties it. Takes every `every`-th call of each layer, from the first on. Throws StateError if the
  /// file cannot be made, OptionError if `every` is less than 1.
  explicit DriftLog(const std::string& path, std::int64_t every = 1);
  bool wants(std::int64_t call) const override { return (call - 1) % every_ == 0; }
  /// Throws StateError if it cannot be written.
  void record(const DriftRecord& record) override;

 private:
  std::string path_;
  std::int64_t every_;
  std::ofstream file_;
};

}  // namespace syncbn
