// SPDX-License-Identifier: MIT
// What a person sees while a network trains.
#pragma once

#include <chrono>

#include "run_folder.hpp"

namespace syncbn::train {

/// How far a training is.
struct ProgressState {
  std::string title;
  Index epoch = 0;  ///< That is trained now, of
  Index epochs = 0;
  Index step = 0;
  Index steps = 0;
  Index timed_steps =
      0;               ///< Of these, those that `seconds` were taken of: a training may go on where another one ended.
  double seconds = 0;  ///< Evaluations among them.
  double loss = 0;
  double test_accuracy = -1;  ///< Of the last epoch; below 0: none yet.
};

/// "sync, seed 2 [#####-----] 50 %, 312 steps/s, 0:12 left, loss 0.1234, test 92.10 %", cut at `columns` characters; the bar
/// takes what room there is, and goes when there is none.
std::string progress_line(const ProgressState& state, std::size_t columns);

/// "sync, seed 2: epoch 3 of 5, 50 %, 312 steps/s, 0:12 left, loss 0.1234": a line of its own, for a log.
std::string progress_note(const ProgressState& state);

/// "0:05", "12:30", "3:02:11"
std::string clock_text(double seconds);

/// On a terminal one line that is rewritten in place; elsewhere, as under mpirun, one line per epoch, and one in between when
/// there has been none for a while. To stderr, without colours (so there is
/// nothing to do for NO_COLOR).
class Progress {
 public:
  enum class Style { quiet, lines, rewritten };
  using Clock = std::chrono::steady_clock;

  /// `lines` or `rewritten`, as stderr is.
  static Style style_of_stderr();

  /// @param longest_silence  After so long `lines` has a note in between.
  explicit Progress(Style style, Clock::duration longest_silence = std::chrono::seconds(10))
      : style_(style), longest_silence_(longest_silence) {}
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
  void take(const StepRecord& record);
  void rewrite(const std::string& text);
  void print_line(const std::string& text);

  Style style_;
  Clock::duration longest_silence_;
  ProgressState state_;
  Index first_step_ = -1;  // that was shown since begin()
  Clock::time_point start_{};
  std::size_t shown_ = 0;     // characters on the current line
  Clock::time_point next_{};  // when something is to be said of a step
};

/// Reports a run to a person and to the run's folder, which outlive the observer.
Observer make_observer(const TrainingId& id, Progress& progress, RunFolder& folder);

}  // namespace syncbn::train
