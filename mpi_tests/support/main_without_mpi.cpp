// SPDX-License-Identifier: MIT
// main() of the tests that need no MPI: the same last line as main.cpp, for one rank.
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>

#include <gtest/gtest.h>
#include <unistd.h>

#include "support/watchdog.hpp"

namespace {

using syncbn::testing::Watchdog;

constexpr int kLeftEarly = 86;
bool finished = false;

void end_if_left_early() {
  if (!finished) ::_exit(kLeftEarly);
}

/// Keeps the watchdog informed.
class ActivityListener : public ::testing::EmptyTestEventListener {
 public:
  explicit ActivityListener(Watchdog& watchdog) : watchdog_(watchdog) {}

 private:
  void OnTestStart(const ::testing::TestInfo& test) override {
    watchdog_.set_activity(std::string("is still in ") + test.test_suite_name() + "." + test.name());
  }
  Watchdog& watchdog_;
};

}  // namespace

int main(int argc, char** argv) {
  std::atexit(end_if_left_early);
  ::testing::InitGoogleTest(&argc, argv);
  std::optional<Watchdog> watchdog;
  try {
    watchdog.emplace(Watchdog::limit_from_environment(), "the test program");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    finished = true;
    return 2;
  }
  auto& tests = *::testing::UnitTest::GetInstance();
  tests.listeners().Append(new ActivityListener(*watchdog));
  const bool failed = RUN_ALL_TESTS() != 0;
  finished = true;
  if (GTEST_FLAG_GET(list_tests)) return 0;

  const int count = tests.test_to_run_count();
  const int skipped = tests.skipped_test_count();
  if (failed || count == 0) {
    std::printf("[verdict] FAILED on 1 ranks: %s\n", failed ? "see above" : "no test was selected");
    return 1;
  }
  std::printf("[verdict] %s on 1 ranks (%d tests, %d skipped)\n", skipped == count ? "skipped" : "passed", count,
              skipped);
  return 0;
}
