// SPDX-License-Identifier: MIT
#include "comparison.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace syncbn::train {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// max |a - b| over the first `count` elements; infinite if a difference is not a number.
template <class T>
double largest_difference(const std::vector<T>& a, const std::vector<T>& b, std::size_t count) {
  double largest = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const double d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    largest = d <= kInfinity ? std::max(largest, d) : kInfinity;
  }
  return largest;
}

const ArmRun* find(const std::vector<ArmRun>& runs, Arm::Kind kind) {
  const auto found = std::find_if(runs.begin(), runs.end(), [&](const ArmRun& run) { return run.arm.kind == kind; });
  return found == runs.end() ? nullptr : &*found;
}

SyncCheck check_sync(const DataSet& data, TrainingOptions training, const ArmRun& single, const ArmRun& sync,
                     MPI_Comm comm, const ComparisonObserver& observer) {
  SyncCheck check{single.batch, single.seed, difference(single.result, sync.result), std::nullopt, false};
  if (single.result.diverged) return check;
  if (is_within_bound(check.sync, Difference{})) {
    check.has_passed = true;
    return check;
  }
  training.start = TrainingOptions::Start::nudged;
  const TrainingResult nudged =
      train(data, training, single.arm, comm, observer.on_begin({"control", single.batch, single.seed}));
  check.control = difference(single.result, nudged);
  check.has_passed = is_within_bound(check.sync, *check.control);
  return check;
}

void drop_weights(TrainingResult& result) {
  result.parameters = {};
  result.running_stats = {};
}

}  // namespace

Difference difference(const TrainingResult& a, const TrainingResult& b) {
  Difference result;
  result.same_bits = a.weights_hash == b.weights_hash && a.step_losses.size() == b.step_losses.size();
  if (a.step_losses.size() != b.step_losses.size()) return {kInfinity, kInfinity, kInfinity, false};
  const std::size_t steps = a.step_losses.size();
  result.weights = largest_difference(a.parameters, b.parameters, a.parameters.size());
  result.loss = largest_difference(a.step_losses, b.step_losses, steps);
  result.early_loss = largest_difference(a.step_losses, b.step_losses, std::min<std::size_t>(steps, kEarlySteps));
  return result;
}

bool is_within_bound(const Difference& sync, const Difference& control) {
  // A loss of order 1 passes through some 32 roundings to float on its way through the layers.
  constexpr double kLossRounding = 32 * static_cast<double>(std::numeric_limits<float>::epsilon());
  return sync.weights <= kSlack * control.weights + kLossRounding &&
         sync.loss <= kSlack * control.loss + kLossRounding &&
         sync.early_loss <= kSlack * control.early_loss + kLossRounding;
}

TrainingOptions training_of(const ComparisonOptions& options, Index batch, std::uint64_t seed) {
  TrainingOptions training = options.training;
  training.batch = batch;
  training.seed = seed;
  training.sgd.learning_rate *= static_cast<double>(batch) / static_cast<double>(options.batches.front());
  return training;
}

Comparison compare(const DataSet& data, const ComparisonOptions& options, MPI_Comm comm,
                   const ComparisonObserver& observer) {
  Comparison comparison;
  for (const std::uint64_t seed : options.seeds) {
    for (const Index batch : options.batches) {
      const TrainingOptions training = training_of(options, batch, seed);
      std::vector<ArmRun> runs;
      for (const Arm& arm : options.arms) {
        const TrainingId id{arm.name(), batch, seed};
        runs.push_back({arm, batch, seed, train(data, training, arm, comm, observer.on_begin(id))});
        observer.on_end(runs.back());
      }
      const ArmRun* single = find(runs, Arm::Kind::single);
      const ArmRun* sync = find(runs, Arm::Kind::sync);
      if (single && sync) {
        comparison.checks.push_back(check_sync(data, training, *single, *sync, comm, observer));
        observer.on_check(comparison.checks.back());
      }
      for (ArmRun& run : runs) {
        drop_weights(run.result);
        comparison.runs.push_back(std::move(run));
      }
    }
  }
  return comparison;
}

}  // namespace syncbn::train
