// SPDX-License-Identifier: MIT
#include "stop_signals.hpp"

#include <atomic>
#include <initializer_list>

namespace syncbn::train {

namespace {

std::atomic<int> came = 0;  // a handler has no other place to write to
static_assert(std::atomic<int>::is_always_lock_free);

extern "C" void take_note(int number) {
  for (const int caught : {SIGTERM, SIGINT}) {
    struct sigaction action {};
    ::sigaction(caught, nullptr, &action);
    if (action.sa_handler != take_note) continue;
    action.sa_handler = SIG_DFL;
    ::sigaction(caught, &action, nullptr);
  }
  if (came.exchange(1) != 0) ::raise(number);  // two at once, in two threads: the second one counts
}

void install(int number, struct sigaction& before) {
  struct sigaction action {};
  action.sa_handler = take_note;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaddset(&action.sa_mask, SIGTERM);
  sigaddset(&action.sa_mask, SIGINT);
  ::sigaction(number, nullptr, &before);
  if (before.sa_handler != SIG_IGN) ::sigaction(number, &action, nullptr);
}

}  // namespace

StopSignals::StopSignals() {
  came = 0;
  install(SIGTERM, terminate_before_);
  install(SIGINT, interrupt_before_);
}

StopSignals::~StopSignals() {
  ::sigaction(SIGTERM, &terminate_before_, nullptr);
  ::sigaction(SIGINT, &interrupt_before_, nullptr);
}

bool StopSignals::has_come() const noexcept { return came != 0; }

}  // namespace syncbn::train
