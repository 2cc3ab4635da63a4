// SPDX-License-Identifier: MIT
// What a person sees while a network trains.
#pragma once

#include <chrono>

#include "run_folder.hpp"

namespace syncbn::train {

/// On a terminal one line that is rewritten in place; elsewhere one line per epoch. To stderr, without colours.
class Progress {
 public:
  enum class Style { quiet, lines, rewritten };

  /// `lines` or `rewritten`, as stderr is.
  static Style style_of_stderr();

  explicit Progress(Style style) : style_(style) {}
  ~Progress() { end(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Starts a training; `title` leads its lines.
  void begin(const std::string& title, Index epochs);
  void show(const StepRecord& record);
  void show(const EpochRecord& record);

  /// Leaves the rewritten line: what follows starts on a new one.
  void end();

 private:
  using Clock = std::chrono::steady_clock;

  void rewrite(const std::string& text);

  Style style_;
  std::string title_;
  Index epochs_ = 0;
  std::string last_epoch_;
  std::size_t shown_ = 0;  // characters on the current line
  Clock::time_point next_{};
};

/// Reports a run to a person and to the run's folder, which outlive the observer.
Observer make_observer(const TrainingId& id, Progress& progress, RunFolder& folder);

}  // namespace syncbn::train
