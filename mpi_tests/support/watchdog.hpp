// SPDX-License-Identifier: MIT
// Ends a test program that hangs, after saying where.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace syncbn::testing {

/// A thread that prints what the program was doing and ends it when `limit` has passed. No limit: 0 seconds.
class Watchdog {
 public:
  /// Exit code of a program that was ended.
  static constexpr int kExitCode = 88;

  /// @param name  Stands before the message, e.g. "[rank 2]".
  Watchdog(std::chrono::duration<double> limit, std::string name);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// What the message will say from now on, e.g. "is still in BatchNorm.Forward".
  void set_activity(std::string activity);

  /// SYNCBN_TEST_LIMIT_SECONDS, which ctest sets a little below the test's timeout; 110 without it. Throws
  /// std::invalid_argument if it is no number.
  static std::chrono::duration<double> limit_from_environment();

 private:
  void wait_for_limit(std::chrono::duration<double> limit);

  std::mutex mutex_;
  std::condition_variable stopping_;
  bool stop_ = false;
  std::string name_;
  std::string activity_ = "is still starting";
  std::thread thread_;
};

}  // namespace syncbn::testing
