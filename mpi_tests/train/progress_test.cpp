// SPDX-License-Identifier: MIT
#include "train/progress.hpp"

#include <chrono>
#include <cmath>

#include <gtest/gtest.h>

namespace syncbn::train {
namespace {

ProgressState half_done() {
  ProgressState state;
  state.title = "sync, seed 2";
  state.step = 500;
  state.steps = 1000;
  state.timed_steps = 250;  // it went on from step 250
  state.seconds = 25;
  state.loss = 0.5;
  return state;
}

TEST(ProgressLine, HasBarRateAndTimeLeft) {
  EXPECT_EQ(progress_line(half_done(), 76),
            "sync, seed 2 [##########----------] 50 %, 10 steps/s, 0:50 left, loss 0.5000");
  ProgressState later = half_done();
  later.test_accuracy = 0.875;
  EXPECT_EQ(progress_line(later, 200),
            "sync, seed 2 [############------------] 50 %, 10 steps/s, 0:50 left, loss 0.5000, test 87.50 %");
}

TEST(ProgressLine, NeverIsWiderThanTheTerminal) {
  for (std::size_t columns = 0; columns < 120; ++columns) {
    EXPECT_LE(progress_line(half_done(), columns).size(), columns);
  }
  EXPECT_EQ(progress_line(half_done(), 60), "sync, seed 2 50 %, 10 steps/s, 0:50 left, loss 0.5000");
}

TEST(ProgressLine, ClaimsNoRateBeforeItHasOne) {
  ProgressState state = half_done();
  state.timed_steps = 0;
  EXPECT_EQ(progress_line(state, 60), "sync, seed 2 [############------------] 50 %, loss 0.5000");
}

/// What `show` lets a Progress print on stderr.
template <class Show>
std::string shown(Progress::Style style, std::chrono::seconds longest_silence, const Show& show) {
  ::testing::internal::CaptureStderr();
  {
    Progress progress(style, longest_silence);
    progress.begin("sync", 5);
    show(progress);
  }
  return ::testing::internal::GetCapturedStderr();
}

void show_two_steps_and_an_epoch(Progress& progress) {
  progress.show(StepRecord{1, 1, 10, 2.5});
  progress.show(StepRecord{1, 2, 10, 2.25});
  progress.show(EpochRecord{1, 2.375, 0.5, 3.0, 0.5, {}});
}

TEST(Progress, HasALinePerEpochWhereThereIsNoTerminal) {
  const std::string text = shown(Progress::Style::lines, std::chrono::seconds(3600), show_two_steps_and_an_epoch);
  EXPECT_EQ(text, "sync: epoch 1 of 5, train loss 2.3750, test accuracy 50.00 %, 3.0 s\n");
}

TEST(Progress, HasLinesInBetweenAfterALongSilence) {
  const std::string text = shown(Progress::Style::lines, std::chrono::seconds(0), show_two_steps_and_an_epoch);
  EXPECT_EQ(text.find("sync: epoch 1 of 5, 10 %, loss 2.5000\nsync: epoch 1 of 5, 20 %, "), 0u) << text;
  EXPECT_NE(text.find(" left, loss 2.2500\nsync: epoch 1 of 5, train loss"), std::string::npos) << text;
}

TEST(Progress, IsSilentIfQuiet) {
  EXPECT_EQ(shown(Progress::Style::quiet, std::chrono::seconds(0), show_two_steps_and_an_epoch), "");
}

TEST(Progress, SaysThatATrainingDiverged) {
  const std::string text = shown(Progress::Style::lines, std::chrono::seconds(3600), [](Progress& progress) {
    progress.show(EpochRecord{2, std::nan(""), std::nan(""), 3.0, 0.5, {}});
  });
  EXPECT_EQ(text, "sync: epoch 2 of 5, diverged, 3.0 s\n");
}

TEST(ProgressClock, CountsUpToHours) {
  EXPECT_EQ(clock_text(0), "0:00");
  EXPECT_EQ(clock_text(59.2), "1:00");
  EXPECT_EQ(clock_text(3599), "59:59");
  EXPECT_EQ(clock_text(10931), "3:02:11");
  EXPECT_EQ(clock_text(1e300), "months");
}

}  // namespace
}  // namespace syncbn::train
