// SPDX-License-Identifier: MIT
#include "trainer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <utility>

#include "checkpoint.hpp"
#include "checkpoint_state.hpp"
#include "collectives.hpp"
#include "drift_sampler.hpp"
#include "fnv.hpp"
#include "idle_ranks.hpp"
#include "random.hpp"
#include "roll_call.hpp"
#include "step_costs.hpp"
#include "syncbn/error.hpp"
#include "training_step.hpp"
#include "watched.hpp"

namespace syncbn::train {

namespace {

constexpr std::uint64_t kOrderStream = 0x4f524452;

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

/// Of at least one number.
double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Where statistics are shared by several ranks; else none.
std::shared_ptr<DriftSampler> make_drift_sampler(const Arm& arm, const ArmRanks& ranks, Index steps) {
  const bool is_wanted = arm.kind == Arm::Kind::sync && ranks.size() > 1;
  return is_wanted ? std::make_shared<DriftSampler>(steps) : nullptr;
}

Network<float> make_started_network(const DataSet& data, const TrainingOptions& options, const ArmRanks& ranks,
                                    const std::shared_ptr<DriftSampler>& sampler) {
  Index layers = 0;
  Index channels = 0;
  const NormFactory make_norm = [&](Index num_features, const std::string& name, Activation activation) {
    ++layers;
    channels += num_features;
    BatchNormOptions layer;
    layer.num_features = num_features;
    layer.name = name;
    layer.activation = activation;
    layer.threads = options.threads;
    layer.measures_costs = true;
    layer.drift_probe = sampler;
    return ranks.make_norm(layer);
  };
  Network<float> network = make_network<float>(options.network, data.train.shape, kClassCount, make_norm);
  initialize(network, options.seed);
  if (options.start == TrainingOptions::Start::nudged) nudge_weights(network, options.seed);
  if (sampler) sampler->set_layers(layers, channels);
  return network;
}

/// Collective over the trainers for class mixes: rank 0's, as machines need not round log() alike.
SampleDealer make_dealer(const DataSet& data, const TrainingOptions& options, const ArmRanks& ranks) {
  ClassMixes mixes{};
  if (options.sharding.kind == Sharding::Kind::dirichlet) {
    mixes = draw_class_mixes(options.sharding.alpha, options.seed);
    broadcast(ranks.trainers(), mixes);
  }
  return SampleDealer(options.sharding, data.train.labels, options.seed, mixes);
}

void append(const ChannelVector& from, std::vector<float>& to) {
  to.insert(to.end(), from.data<float>(), from.data<float>() + from.size());
}

bool is_finite(const float* values, Index count) {
  return std::all_of(values, values + count, [](float value) { return std::isfinite(value); });
}

/// Weights and running statistics: what evaluation uses.
bool is_finite(const Network<float>& network) {
  const auto& [parameters, norms] = network.trainables;
  return std::all_of(parameters.begin(), parameters.end(),
                     [](const Parameter<float>* parameter) { return is_finite(parameter->values, parameter->size); }) &&
         std::all_of(norms.begin(), norms.end(), [](const BatchNorm* norm) {
           return is_finite(norm->running_mean().data<float>(), norm->running_mean().size()) &&
                  is_finite(norm->running_var().data<float>(), norm->running_var().size());
         });
}

/// Copies the network's numbers into the result and checks that all trainers have the same.
void take_weights(const Network<float>& network, const ArmRanks& ranks, TrainingResult& result) {
  for (const Parameter<float>* parameter : network.trainables.parameters) {
    result.parameters.insert(result.parameters.end(), parameter->values, parameter->values + parameter->size);
  }
  for (const BatchNorm* norm : network.trainables.norms) {
    append(norm->running_mean(), result.running_stats);
    append(norm->running_var(), result.running_stats);
  }
  result.weights_hash = hash_of(result.parameters, result.running_stats);

  std::uint64_t first_rank_hash = result.weights_hash;
  broadcast(ranks.trainers(), first_rank_hash);
  std::int64_t different = first_rank_hash != result.weights_hash ? 1 : 0;
  all_reduce_sum(ranks.trainers(), &different, 1);
  if (different > 0) {
    throw MismatchError("[trainer] the weights of " + std::to_string(different) + " of " +
                        std::to_string(ranks.size()) + " ranks differ from those of rank 0 at the end of training");
  }
}

/// One training on the ranks of an arm; the observer is called by rank 0 of them.
class TrainingRun {
 public:
  /// All is borrowed.
  TrainingRun(const DataSet& data, const TrainingOptions& options, const Arm& arm, MPI_Comm comm,
              const Observer& observer, const Continuation& continuation)
      : data_(data),
        options_(options),
        observer_(observer),
        continuation_(continuation),
        ranks_(arm, comm, [this] { tell_waiting(); }),
        drift_(make_drift_sampler(arm, ranks_, data.train.count / options.batch * options.epochs)),
        network_(make_started_network(data, options, ranks_, drift_)),
        step_(network_, options.sgd, data.train, ranks_, note_size()),
        dealer_(make_dealer(data, options, ranks_)),
        evaluate_(options.network, data, ranks_, options.evaluation),
        steps_per_epoch_(data.train.count / options.batch),
        steps_(steps_per_epoch_ * options.epochs) {
    if (!continuation.folder.empty()) key_ = key_of(data, options, arm, ranks_.size());
    if (continuation.start) start_from(*continuation.start);
  }

  TrainingResult run() {
    while (done() < steps_ && !result_.diverged && !result_.stopped) {
      do_step();
      const bool is_epoch_end = done() % steps_per_epoch_ == 0;
      if (is_epoch_end || result_.diverged) end_epoch();
      result_.stopped = step_.is_stop_wished() && done() < steps_ && !result_.diverged;
      if (is_checkpoint_due(is_epoch_end)) save();
    }
    if (options_.epochs == 0) result_.test_accuracy = test_accuracy(network_, data_.test, ranks_);
    if (!result_.stopped) take_weights(network_, ranks_, result_);
    result_.seconds = seconds();
    return std::move(result_);
  }

 private:
  Index done() const { return static_cast<Index>(result_.step_losses.size()); }
  double seconds() const { return seconds_before_ + watch_.seconds(); }

  void start_from(const Checkpoint& checkpoint) {
    give_state(checkpoint, ranks_, network_, step_.sgd());
    result_.step_losses = checkpoint.step_losses;
    result_.epochs = checkpoint.epochs;
    if (!result_.epochs.empty()) result_.test_accuracy = result_.epochs.back().test_accuracy;
    seconds_before_ = checkpoint.seconds;
  }

  void do_step() {
    const Index epoch = done() / steps_per_epoch_ + 1;
    const Index step_of_epoch = done() % steps_per_epoch_;
    if (step_of_epoch == 0 || order_.empty()) {
      order_ = epoch_order(data_.train.count, options_.seed, epoch);
      dealer_.deal(order_, options_.batch, epoch);
    }
    step_.set_stop_wish(continuation_.wants_stop());
    if (drift_) {
      drift_->begin_step(is_probed_, step_.notes());
      if (ranks_.rank() == 0) step_.set_probe_wish(drift_->wants_step(done() + 2));
    }
    const Stopwatch step_watch;
    const double loss = step_(order_.data() + step_of_epoch * options_.batch, options_.batch,
                              learning_rate(options_.sgd, {done(), steps_, steps_per_epoch_}));
    step_seconds_.push_back(step_watch.seconds());
    result_.step_losses.push_back(loss);
    result_.diverged = !std::isfinite(loss);
    tell_waiting();
    if (ranks_.rank() == 0) tell(epoch, loss);
    is_probed_ = drift_ && step_.is_probe_wished();
  }

  Index note_size() const {
    return drift_ ? static_cast<Index>(network_.trainables.norms.size()) * DriftSampler::kNotesPerLayer : 0;
  }

  void tell_waiting() const {
    if (ranks_.rank() == 0) observer_.on_work();
  }

  void tell(Index epoch, double loss) {
    StepRecord record{epoch, done(), steps_, loss};
    const Stopwatch writing;
    if (drift_) drift_->end_step(step_seconds_.back());
    if (is_probed_) {
      record.drifts = drift_->over_ranks(ranks_.size(), [this](Index rank) { return step_.notes_of(rank); });
    }
    observer_.on_step(record);
    if (drift_) drift_->spend(writing.seconds());
  }

  void end_epoch() {
    const Index epoch = static_cast<Index>(result_.epochs.size()) + 1;
    const auto first_loss = result_.step_losses.begin() + (epoch - 1) * steps_per_epoch_;
    const double loss_sum = std::accumulate(first_loss, result_.step_losses.end(), 0.0);
    const bool is_final = epoch > options_.epochs - kFinalEpochs && !result_.diverged;
    const OtherAccuracies others = is_final ? evaluate_(network_, order_, options_.batch) : OtherAccuracies{};
    share_running_stats(network_, ranks_);
    result_.diverged = result_.diverged || !is_finite(network_);  // the same on all ranks, as the numbers are
    result_.test_accuracy = result_.diverged ? std::nan("") : test_accuracy(network_, data_.test, ranks_);
    const StepCosts costs = take_step_costs(network_, step_seconds_);
    result_.epochs.push_back({epoch, loss_sum / static_cast<double>(steps_per_epoch_), result_.test_accuracy, seconds(),
                              median(std::exchange(step_seconds_, {})), others, costs});
    if (ranks_.rank() == 0) observer_.on_epoch(result_.epochs.back());
  }

  bool is_checkpoint_due(bool is_epoch_end) const {
    if (continuation_.folder.empty() || result_.diverged) return false;
    if (result_.stopped || done() == steps_) return true;
    return continuation_.every > 0 ? done() % continuation_.every == 0 : is_epoch_end;
  }

  void save() {
    Checkpoint checkpoint;
    checkpoint.step_losses = result_.step_losses;
    checkpoint.epochs = result_.epochs;
    checkpoint.seconds = seconds();
    checkpoint.copies = key_.copies;
    take_state(network_, step_.sgd(), ranks_, checkpoint);
    on_first_rank(ranks_.trainers(),
                  [&] { save_checkpoint(continuation_.folder, key_, checkpoint, [this] { ranks_.still_here(); }); });
  }

  const DataSet& data_;
  const TrainingOptions& options_;
  const Observer& observer_;
  const Continuation& continuation_;
  const Stopwatch watch_;
  double seconds_before_ = 0;  // of the processes before this one
  ArmRanks ranks_;
  std::shared_ptr<DriftSampler> drift_;  // in arm sync
  bool is_probed_ = false;               // the step that is next, or in work
  Network<float> network_;
  TrainingStep step_;
  SampleDealer dealer_;
  Evaluator evaluate_;
  Index steps_per_epoch_;
  Index steps_;
  TrainingKey key_;
  std::vector<Index> order_;          // of the current epoch's samples
  std::vector<double> step_seconds_;  // of the current epoch, as far as this process did it
  TrainingResult result_;
};

/// Shares of blocks of `block_size` consecutive ranks; those of 0 are not counted.
ShareSizes share_sizes(Index batch, Index ranks, Index block_size) {
  ShareSizes sizes{batch, 0};
  for (Index first = 0; first < ranks; first += block_size) {
    Index samples = 0;
    for (Index rank = first; rank < std::min(ranks, first + block_size); ++rank) {
      samples += shard_of_rank(batch, rank, ranks).samples.count;
    }
    sizes.largest = std::max(sizes.largest, samples);
    if (samples > 0) sizes.smallest = std::min(sizes.smallest, samples);
  }
  return sizes;
}

}  // namespace

ShareSizes samples_per_rank(const Arm& arm, Index batch, Index ranks) {
  if (arm.kind == Arm::Kind::single) return {batch, batch};
  ShareSizes sizes = share_sizes(batch, ranks, 1);
  if (idle_ranks(batch, ranks) > 0) sizes.smallest = 0;
  return sizes;
}

ShareSizes samples_per_norm(const Arm& arm, Index batch, Index ranks) {
  switch (arm.kind) {
    case Arm::Kind::local:
      return share_sizes(batch, ranks, 1);
    case Arm::Kind::group:
      return share_sizes(batch, ranks, arm.group_size);
    case Arm::Kind::single:
    case Arm::Kind::sync:
      break;
  }
  return {batch, batch};
}

std::uint64_t hash_of(const std::vector<float>& parameters, const std::vector<float>& running_stats) {
  Fnv1a hash;
  hash.add(parameters.data(), parameters.size() * sizeof(float));
  hash.add(running_stats.data(), running_stats.size() * sizeof(float));
  return hash.value();
}

std::vector<Index> epoch_order(Index count, std::uint64_t seed, Index epoch) {
  const CounterRandom random = CounterRandom(seed, kOrderStream).substream(static_cast<std::uint64_t>(epoch));
  std::vector<Index> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), Index{0});
  shuffle(order, random);
  return order;
}

void broadcast_result(MPI_Comm comm, TrainingResult& result) {
  broadcast(comm, result.step_losses);
  broadcast(comm, result.epochs);
  broadcast(comm, result.parameters);
  broadcast(comm, result.running_stats);
  broadcast(comm, result.weights_hash);
  broadcast(comm, result.test_accuracy);
  broadcast(comm, result.seconds);
  broadcast(comm, result.diverged);
  broadcast(comm, result.stopped);
}

TrainingResult train(const DataSet& data, const TrainingOptions& options, const Arm& arm, MPI_Comm comm,
                     const Observer& observer, const Continuation& continuation) {
  check_options(options, data);
  TrainingResult result;
  if (arm.kind == Arm::Kind::single) {
    RollCall roll_call(comm, 1, deadline_seconds_of(comm), "[training on rank 0]");  // the others wait
    Observer alone = observer;
    alone.on_work = [&] {
      roll_call.ask();
      roll_call.throw_if_missing();
      observer.on_work();
    };
    all_or_nothing(comm, [&] {
      roll_call.during([&] {
        if (rank_of(comm) == 0) result = TrainingRun(data, options, arm, comm, alone, continuation).run();
      });
    });
  } else {
    result = TrainingRun(data, options, arm, comm, observer, continuation).run();
  }
  broadcast_result(comm, result);
  return result;
}

}  // namespace syncbn::train
