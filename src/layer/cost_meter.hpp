// SPDX-License-Identifier: MIT
// What a layer with BatchNormOptions::measures_costs does beside its passes.
#pragma once

#include <chrono>
#include <cstddef>

#include "syncbn/pass_costs.hpp"

namespace syncbn::layer {

/// A stopwatch with laps. One pass is in work at a time, and counts when it is committed. Off, each call is a branch; on,
/// a look at the clock, some 25 ns.
class CostMeter {
 public:
  /// `message_bytes`: of each pass; 0 in a group of one rank.
  CostMeter(bool is_on, std::size_t message_bytes)
      : is_on_(is_on), message_bytes_(static_cast<std::int64_t>(message_bytes)) {}

  /// At the head of a pass: forgets one that was not committed.
  void begin() {
    if (!is_on_) return;
    pass_ = {};
    resume();
  }
  /// From here on time counts again.
  void resume() {
    if (is_on_) lap_start_ = Clock::now();
  }
  /// The time since the last call of any of these functions becomes part of the pass.
  void add_statistics() { add_to(pass_.statistics_seconds); }
  void add_elements() { add_to(pass_.element_seconds); }
  /// (Alone there is no message, but a look at the clock.)
  void add_message() {
    if (message_bytes_ > 0) add_to(pass_.message_seconds);
  }
  /// The pass is finished.
  void commit_forward() { commit(costs_.forward); }
  void commit_backward() { commit(costs_.backward); }

  const LayerCosts& costs() const noexcept { return costs_; }
  void reset() noexcept { costs_ = {}; }

 private:
  using Clock = std::chrono::steady_clock;

  void add_to(double& seconds) {
    if (!is_on_) return;
    const Clock::time_point now = Clock::now();
    seconds += std::chrono::duration<double>(now - lap_start_).count();
    lap_start_ = now;
  }
  void commit(PassCosts& total) const {
    if (!is_on_) return;
    ++total.passes;
    total.statistics_seconds += pass_.statistics_seconds;
    total.message_seconds += pass_.message_seconds;
    total.element_seconds += pass_.element_seconds;
    total.message_bytes += message_bytes_;
  }

  bool is_on_;
  std::int64_t message_bytes_;
  Clock::time_point lap_start_;
  PassCosts pass_;
  LayerCosts costs_;
};

}  // namespace syncbn::layer
