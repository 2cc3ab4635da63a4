// SPDX-License-Identifier: MIT
// What every rank of a job does, and what the guilty one does instead.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "faults/training.hpp"

namespace syncbn::testing {

using Action = std::function<void(Training&)>;

/// One rank's job: three steps of training unless a fault has changed that.
struct FaultJob {
  FaultJob(int rank, int ranks, int guilty, double deadline_seconds);

  bool is_guilty() const { return rank == guilty; }
  /// The lowest rank that is not guilty.
  int lowest_other() const { return guilty == 0 ? 1 : 0; }

  int rank;
  int ranks;
  int guilty;
  double deadline;
  CommunicatorOptions communicator_options;
  std::vector<BatchNormOptions> layers = three_layers();
  std::function<void()> before_communicator = [] {};
  std::function<Communicator()> make_communicator;
  std::function<void()> before_layers = [] {};
  std::vector<Action> script;
  /// An error ends this rank's part: it goes up through the scope that owns the layers.
  bool errors_end_layers = false;
  /// This rank does not try what can still be done after an error.
  bool gives_up = false;
};

/// Makes the job one with the fault of that name. False if there is none.
bool put_fault(const std::string& name, FaultJob& job);

/// For errors at random: overlapped passes, an error that all get and go on after, an all-reduce of the program's own,
/// ranks that run out of data.
void put_varied_training(FaultJob& job);

}  // namespace syncbn::testing
