// SPDX-License-Identifier: MIT
#include "progress.hpp"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <unistd.h>

namespace syncbn::train {

namespace {

template <class... Args>
std::string format(const char* pattern, Args... args) {
  std::array<char, 160> text{};
  std::snprintf(text.data(), text.size(), pattern, args...);
  return text.data();
}

}  // namespace

Progress::Style Progress::style_of_stderr() {
  const char* terminal = std::getenv("TERM");
  const bool can_rewrite = isatty(STDERR_FILENO) && terminal && std::strcmp(terminal, "dumb") != 0;
  return can_rewrite ? Style::rewritten : Style::lines;
}

void Progress::begin(const std::string& title, Index epochs) {
  end();
  title_ = title;
  epochs_ = epochs;
  last_epoch_.clear();
}

void Progress::show(const StepRecord& record) {
  if (style_ != Style::rewritten || Clock::now() < next_) return;
  next_ = Clock::now() + std::chrono::milliseconds(100);
  rewrite(format("%s: step %lld of %lld, loss %.4f", title_.c_str(), static_cast<long long>(record.step),
                 static_cast<long long>(record.steps), record.loss) +
          last_epoch_);
}

void Progress::show(const EpochRecord& record) {
  if (style_ == Style::quiet) return;
  const std::string text = format("%s: epoch %lld of %lld, train loss %.4f, test accuracy %.2f %%, %.1f s",
                                  title_.c_str(), static_cast<long long>(record.epoch), static_cast<long long>(epochs_),
                                  record.train_loss, 100.0 * record.test_accuracy, record.seconds);
  if (style_ == Style::lines) {
    std::fprintf(stderr, "%s\n", text.c_str());
    return;
  }
  last_epoch_ = format(", test accuracy %.2f %%", 100.0 * record.test_accuracy);
  rewrite(text);
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
  };
  observer.on_epoch = [id, &progress, &folder](const EpochRecord& record) {
    progress.show(record);
    folder.record(epoch_line(id, record));
  };
  return observer;
}

}  // namespace syncbn::train
