// SPDX-License-Identifier: MIT
#include "support/watchdog.hpp"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <utility>

#include <unistd.h>

namespace syncbn::testing {

Watchdog::Watchdog(std::chrono::duration<double> limit, std::string name) : name_(std::move(name)) {
  if (limit.count() > 0) thread_ = std::thread([this, limit] { wait_for_limit(limit); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stopping_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Watchdog::set_activity(std::string activity) {
  const std::lock_guard lock(mutex_);
  activity_ = std::move(activity);
}

void Watchdog::wait_for_limit(std::chrono::duration<double> limit) {
  std::unique_lock lock(mutex_);
  if (stopping_.wait_for(lock, limit, [this] { return stop_; })) return;
  std::fprintf(stderr, "%s %s after %g seconds\n", name_.c_str(), activity_.c_str(), limit.count());
  std::fflush(stderr);
  lock.unlock();
  // The first rank that goes takes the others with it: let all of them speak.
  std::this_thread::sleep_for(std::chrono::seconds(1));
  ::_exit(kExitCode);
}

std::chrono::duration<double> Watchdog::limit_from_environment() {
  const char* text = std::getenv("SYNCBN_TEST_LIMIT_SECONDS");
  if (text == nullptr) return std::chrono::seconds(110);
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  if (end == text || *end != '\0' || !std::isfinite(seconds) || seconds < 0) {
    throw std::invalid_argument(std::string("SYNCBN_TEST_LIMIT_SECONDS is \"") + text +
                                "\", wanted seconds (0: no limit)");
  }
  return std::chrono::duration<double>(seconds);
}

}  // namespace syncbn::testing
