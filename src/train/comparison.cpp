// SPDX-License-Identifier: MIT
#include "comparison.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "collectives.hpp"
#include "first_ranks.hpp"

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

void drop_weights(TrainingResult& result) {
  result.parameters = {};
  result.running_stats = {};
}

/// The trainings of one seed with one batch.
class Round {
 public:
  /// All is borrowed.
  Round(const DataSet& data, const ComparisonOptions& options, Index batch, std::uint64_t seed, MPI_Comm comm,
        const std::vector<std::unique_ptr<FirstRanks>>& first_ranks, const ComparisonObserver& observer,
        const std::function<bool()>& wants_stop)
      : data_(data),
        training_(training_of(options, batch, seed)),
        comm_(comm),
        first_ranks_(first_ranks),
        observer_(observer),
        wants_stop_(wants_stop) {}

  /// Adds to the comparison what is complete.
  void run(const std::vector<ArmOnRanks>& arms, Comparison& comparison) {
    for (const ArmOnRanks& each : arms) {
      if (is_stopped_) break;
      const TrainingId id{each.arm.name(), training_.batch, training_.seed, each.ranks};
      ArmRun arm_run{each.arm, each.ranks, id.batch, id.seed, train_one(each, id, training_)};
      if (arm_run.result.stopped) break;
      runs_.push_back(std::move(arm_run));
      observer_.on_end(runs_.back());
    }
    if (!is_stopped_) check_all(comparison.checks);
    for (ArmRun& arm_run : runs_) {
      drop_weights(arm_run.result);
      comparison.runs.push_back(std::move(arm_run));
    }
    comparison.stopped = is_stopped_;
  }

 private:
  /// Agrees on stopping, too.
  TrainingResult train_one(const ArmOnRanks& what, const TrainingId& id, const TrainingOptions& training) {
    Continuation continuation;
    continuation.wants_stop = wants_stop_;
    const Observer observer = observer_.on_begin(id);
    TrainingResult result = what.arm.kind == Arm::Kind::single
                                ? train(data_, training, what.arm, comm_, observer, continuation)
                                : on(what.ranks).train(data_, training, what.arm, observer, continuation);
    std::int64_t wishes = wants_stop_() ? 1 : 0;
    all_reduce_sum(comm_, &wishes, 1);
    is_stopped_ = result.stopped || wishes > 0;
    return result;
  }

  const FirstRanks& on(Index ranks) const {
    return **std::find_if(first_ranks_.begin(), first_ranks_.end(),
                          [ranks](const auto& candidate) { return candidate->count() == ranks; });
  }

  void check_all(std::vector<SyncCheck>& checks) {
    const ArmRun* base = find(Arm::Kind::single);
    if (!base) base = find(Arm::Kind::sync);
    for (const ArmRun& arm_run : runs_) {
      if (arm_run.arm.kind != Arm::Kind::sync || &arm_run == base) continue;
      const std::optional<SyncCheck> check = check_sync(*base, arm_run);
      if (!check) return;
      checks.push_back(*check);
      observer_.on_check(*check);
    }
  }

  /// Nothing if the control was stopped.
  std::optional<SyncCheck> check_sync(const ArmRun& base, const ArmRun& sync) {
    SyncCheck check{sync.ranks,   sync.batch, sync.seed, base.id(), difference(base.result, sync.result),
                    std::nullopt, false};
    if (base.result.diverged) return check;
    if (is_within_bound(check.sync, Difference{})) {
      check.has_passed = true;
      return check;
    }
    if (!control_) {
      TrainingOptions nudged = training_;
      nudged.start = TrainingOptions::Start::nudged;
      const TrainingId id{"control", base.batch, base.seed, base.ranks};
      const TrainingResult control = train_one({base.arm, base.ranks}, id, nudged);
      if (control.stopped) return std::nullopt;
      control_ = difference(base.result, control);
    }
    check.control = control_;
    check.has_passed = is_within_bound(check.sync, *control_);
    return check;
  }

  /// The first of this kind.
  const ArmRun* find(Arm::Kind kind) const {
    const auto found =
        std::find_if(runs_.begin(), runs_.end(), [&](const ArmRun& arm_run) { return arm_run.arm.kind == kind; });
    return found == runs_.end() ? nullptr : &*found;
  }

  const DataSet& data_;
  const TrainingOptions training_;
  MPI_Comm comm_;
  const std::vector<std::unique_ptr<FirstRanks>>& first_ranks_;
  const ComparisonObserver& observer_;
  const std::function<bool()>& wants_stop_;
  std::vector<ArmRun> runs_;
  std::optional<Difference> control_;  // from the base of the checks
  bool is_stopped_ = false;
};

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

std::vector<Index> rank_counts(const ComparisonOptions& options, MPI_Comm comm) {
  return options.ranks.empty() ? std::vector<Index>{size_of(comm)} : options.ranks;
}

std::vector<ArmOnRanks> arms_on_ranks(const std::vector<Arm>& arms, const std::vector<Index>& rank_counts) {
  std::vector<ArmOnRanks> result;
  for (const Index ranks : rank_counts) {
    for (const Arm& arm : arms) {
      const bool is_single = arm.kind == Arm::Kind::single;
      if (is_single && ranks != rank_counts.front()) continue;
      result.push_back({arm, is_single && rank_counts.size() > 1 ? 1 : ranks});
    }
  }
  return result;
}

Comparison compare(const DataSet& data, const ComparisonOptions& options, MPI_Comm comm,
                   const ComparisonObserver& observer, const std::function<bool()>& wants_stop) {
  const std::vector<Index> counts = rank_counts(options, comm);
  std::vector<std::unique_ptr<FirstRanks>> first_ranks;
  for (const Index count : counts) first_ranks.push_back(std::make_unique<FirstRanks>(count, comm));
  const std::vector<ArmOnRanks> arms = arms_on_ranks(options.arms, counts);
  Comparison comparison;
  for (const std::uint64_t seed : options.seeds) {
    for (const Index batch : options.batches) {
      if (comparison.stopped) return comparison;
      Round(data, options, batch, seed, comm, first_ranks, observer, wants_stop).run(arms, comparison);
    }
  }
  return comparison;
}

}  // namespace syncbn::train
