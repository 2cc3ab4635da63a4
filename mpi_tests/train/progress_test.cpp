// SPDX-License-Identifier: MIT
#include "train/progress.hpp"

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

TEST(ProgressClock, CountsUpToHours) {
  EXPECT_EQ(clock_text(0), "0:00");
  EXPECT_EQ(clock_text(59.2), "1:00");
  EXPECT_EQ(clock_text(3599), "59:59");
  EXPECT_EQ(clock_text(10931), "3:02:11");
  EXPECT_EQ(clock_text(1e300), "months");
}

}  // namespace
}  // namespace syncbn::train
