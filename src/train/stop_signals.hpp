// SPDX-License-Identifier: MIT
// SIGTERM and SIGINT as a wish that is granted at the end of a step.
#pragma once

#include <csignal>

namespace syncbn::train {

/// While it lives, the first SIGTERM or SIGINT sets a flag instead of ending the process; the second one of either ends it, as
/// usual. A signal that was ignored before (nohup) stays ignored. One object at a time.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  bool has_come() const noexcept;

 private:
  struct sigaction terminate_before_ {};
  struct sigaction interrupt_before_ {};
};

}  // namespace syncbn::train
