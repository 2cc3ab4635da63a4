// SPDX-License-Identifier: MIT
#include "progress.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <sys/ioctl.h>
#include <unistd.h>

namespace syncbn::train {

namespace {

template <class... Args>
std::string format(const char* pattern, Args... args) {
  std::array<char, 160> text{};
  std::snprintf(text.data(), text.size(), pattern, args...);
  return text.data();
}

/// Of the terminal behind stderr.
std::size_t columns_of_stderr() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string bar(double fraction, std::size_t width) {
  const auto full = static_cast<std::size_t>(std::clamp(fraction, 0.0, 1.0) * static_cast<double>(width));
  return std::string(" [").append(full, '#').append(width - full, '-').append("]");
}

double fraction_of(const ProgressState& state) {
  return state.steps > 0 ? static_cast<double>(state.step) / static_cast<double>(state.steps) : 0;
}

/// "50 %, 312 steps/s, 0:12 left, loss 0.1234"
std::string how_far(const ProgressState& state) {
  std::string text = format("%.0f %%", std::floor(100 * fraction_of(state)));
  if (state.timed_steps > 0 && state.seconds > 0) {
    const double rate = static_cast<double>(state.timed_steps) / state.seconds;
    text += format(rate < 9.95 ? ", %.1f steps/s" : ", %.0f steps/s", rate) + ", " +
            clock_text(static_cast<double>(state.steps - state.step) / rate) + " left";
  }
  return text + format(", loss %.4f", state.loss);
}

}  // namespace

std::string clock_text(double seconds) {
  if (!(seconds < 1e7)) return "months";
  const auto whole = static_cast<long long>(std::ceil(std::max(0.0, seconds)));
  if (whole < 3600) return format("%lld:%02lld", whole / 60, whole % 60);
  return format("%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string progress_line(const ProgressState& state, std::size_t columns) {
  std::string text(1, ' ');
  text += how_far(state);
  if (state.test_accuracy >= 0) text += format(", test %.2f %%", 100 * state.test_accuracy);

  constexpr std::size_t kWidest = 24;
  constexpr std::size_t kNarrowest = 6;
  const std::size_t taken = state.title.size() + text.size() + 3;  // a blank and the brackets
  const std::size_t room = columns > taken ? std::min(kWidest, columns - taken) : 0;
  std::string line = state.title;
  if (room >= kNarrowest) line += bar(fraction_of(state), room);
  line += text;
  return line.substr(0, columns);
}

std::string progress_note(const ProgressState& state) {
  return state.title +
         format(": epoch %lld of %lld, ", static_cast<long long>(state.epoch), static_cast<long long>(state.epochs)) +
         how_far(state);
}

Progress::Style Progress::style_of_stderr() {
  const char* terminal = std::getenv("TERM");
  const bool can_rewrite = isatty(STDERR_FILENO) && terminal && std::strcmp(terminal, "dumb") != 0;
  return can_rewrite ? Style::rewritten : Style::lines;
}

void Progress::begin(const std::string& title, Index epochs) {
  end();
  state_ = {};
  state_.title = title;
  state_.epochs = epochs;
  first_step_ = -1;
  next_ = style_ == Style::lines ? Clock::now() + longest_silence_ : Clock::time_point();
}

void Progress::show(const StepRecord& record) {
  if (first_step_ < 0) {  // the first step's own time is not known
    first_step_ = record.step;
    start_ = Clock::now();
  }
  if (style_ == Style::quiet || Clock::now() < next_) return;
  take(record);
  if (style_ == Style::lines) {
    print_line(progress_note(state_));
    return;
  }
  next_ = Clock::now() + std::chrono::milliseconds(100);
  rewrite(progress_line(state_, columns_of_stderr() - 1));  // in the last column some terminals go to the next line
}

void Progress::show(const EpochRecord& record) {
  if (style_ == Style::quiet) return;
  state_.test_accuracy = record.test_accuracy;
  std::string text = state_.title + format(": epoch %lld of %lld, ", static_cast<long long>(record.epoch),
                                           static_cast<long long>(state_.epochs));
  if (std::isfinite(record.test_accuracy)) {
    text += format("train loss %.4f, test accuracy %.2f %%, ", record.train_loss, 100.0 * record.test_accuracy);
  } else {
    text += "diverged, ";
  }
  text += format("%.1f s", record.seconds);
  if (style_ == Style::lines) {
    print_line(text);
  } else if (record.epoch == state_.epochs) {
    rewrite(text.substr(0, columns_of_stderr() - 1));
  }
}

void Progress::take(const StepRecord& record) {
  state_.epoch = record.epoch;
  state_.step = record.step;
  state_.steps = record.steps;
  state_.loss = record.loss;
  state_.seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  state_.timed_steps = record.step - first_step_;
}

void Progress::print_line(const std::string& text) {
  std::fprintf(stderr, "%s\n", text.c_str());
  next_ = Clock::now() + longest_silence_;
}

void Progress::rewrite(const std::string& text) {
  const int blanks = shown_ > text.size() ? static_cast<int>(shown_ - text.size()) : 0;
  std::fprintf(stderr, "\r%s%*s", text.c_str(), blanks, "");
  std::fflush(stderr);
  shown_ = text.size();
}

void Progress::end() {
  if (shown_ > 0) std::fputc('\n', stderr);
  shown_ = 0;
}

Observer make_observer(const TrainingId& id, Progress& progress, RunFolder& folder) {
  Observer observer;
  observer.on_step = [id, &progress, &folder](const StepRecord& record) {
    progress.show(record);
    if (is_recorded(record)) folder.record(step_line(id, record));
    if (!record.drifts.empty()) folder.record(drift_line(id, record));
  };
  observer.on_epoch = [id, &progress, &folder](const EpochRecord& record) {
    progress.show(record);
    folder.record(epoch_line(id, record));
  };
  return observer;
}

}  // namespace syncbn::train
