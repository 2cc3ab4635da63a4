// SPDX-License-Identifier: MIT
#include "trainer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "collectives.hpp"
#include "errors.hpp"
#include "evaluate.hpp"
#include "random.hpp"
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

Network<float> make_started_network(const DataSet& data, const TrainingOptions& options, const ArmRanks& ranks) {
  const NormFactory make_norm = [&](Index num_features, const std::string& name) {
    return ranks.make_norm(num_features, name, DataType::f32);
  };
  Network<float> network = make_network<float>(options.network, data.train.shape, kClassCount, make_norm);
  initialize(network, options.seed);
  if (options.start == TrainingOptions::Start::nudged) nudge_weights(network, options.seed);
  return network;
}

void append(const ChannelVector& from, std::vector<float>& to) {
  to.insert(to.end(), from.data<float>(), from.data<float>() + from.size());
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
TrainingResult run(const DataSet& data, const TrainingOptions& options, const ArmRanks& ranks,
                   const Observer& observer) {
  const Stopwatch watch;
  Network<float> network = make_started_network(data, options, ranks);
  TrainingStep step(network, options.sgd, data.train, ranks);
  const Index steps_per_epoch = data.train.count / options.batch;
  const Index steps = steps_per_epoch * options.epochs;

  TrainingResult result;
  for (Index epoch = 1; epoch <= options.epochs && !result.diverged; ++epoch) {
    const std::vector<Index> order = epoch_order(data.train.count, options.seed, epoch);
    double loss_sum = 0;
    for (Index i = 0; i < steps_per_epoch && !result.diverged; ++i) {
      const auto done = static_cast<Index>(result.step_losses.size());
      const double loss =
          step(order.data() + i * options.batch, options.batch, learning_rate(options.sgd, done, steps));
      result.step_losses.push_back(loss);
      result.diverged = !std::isfinite(loss);
      loss_sum += loss;
      if (ranks.rank() == 0) observer.on_step({epoch, done + 1, steps, loss});
    }
    share_running_stats(network, ranks);
    result.test_accuracy = test_accuracy(network, data.test, ranks);
    result.epochs.push_back(
        {epoch, loss_sum / static_cast<double>(steps_per_epoch), result.test_accuracy, watch.seconds()});
    if (ranks.rank() == 0) observer.on_epoch(result.epochs.back());
  }
  if (options.epochs == 0) result.test_accuracy = test_accuracy(network, data.test, ranks);
  take_weights(network, ranks, result);
  result.seconds = watch.seconds();
  return result;
}

/// Makes the result of rank 0 that of all ranks.
void broadcast_result(MPI_Comm comm, TrainingResult& result) {
  broadcast(comm, result.step_losses);
  broadcast(comm, result.epochs);
  broadcast(comm, result.parameters);
  broadcast(comm, result.running_stats);
  broadcast(comm, result.weights_hash);
  broadcast(comm, result.test_accuracy);
  broadcast(comm, result.seconds);
  broadcast(comm, result.diverged);
}

/// Shares of blocks of `block_size` consecutive ranks.
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

void check_options(const TrainingOptions& options, const DataSet& data) {
  const auto refuse = [](const std::string& what, double got, const std::string& wanted) {
    std::string number = std::to_string(got);
    number.erase(number.find_last_not_of('0') + 1);
    if (!number.empty() && number.back() == '.') number.pop_back();
    throw UsageError(what + " is " + number + ", wanted " + wanted);
  };
  if (!is_network(options.network)) {
    throw UsageError("there is no network '" + options.network + "', only " + network_names());
  }
  constexpr Index kMaxEpochs = 1000000;  // the number of steps must fit 64 bits
  if (options.epochs < 0 || options.epochs > kMaxEpochs) {
    refuse("the number of epochs", static_cast<double>(options.epochs), "0 to " + std::to_string(kMaxEpochs));
  }
  if (options.batch < 1 || options.batch > data.train.count) {
    refuse("the global batch", static_cast<double>(options.batch),
           "1 to " + std::to_string(data.train.count) + " samples (the training set)");
  }
  const SgdOptions& sgd = options.sgd;
  if (!(std::isfinite(sgd.learning_rate) && sgd.learning_rate > 0)) {
    refuse("the learning rate", sgd.learning_rate, "a finite number above 0");
  }
  if (!(sgd.momentum >= 0 && sgd.momentum < 1)) refuse("the momentum", sgd.momentum, "0 or more and less than 1");
  if (!(std::isfinite(sgd.weight_decay) && sgd.weight_decay >= 0)) {
    refuse("the weight decay", sgd.weight_decay, "a finite number, 0 or more");
  }
}

ShareSizes samples_per_rank(const Arm& arm, Index batch, Index ranks) {
  return share_sizes(batch, arm.kind == Arm::Kind::single ? 1 : ranks, 1);
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
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const std::vector<float>* values : {&parameters, &running_stats}) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(values->data());
    for (std::size_t i = 0; i < values->size() * sizeof(float); ++i) {
      hash = (hash ^ bytes[i]) * 0x100000001b3u;
    }
  }
  return hash;
}

std::vector<Index> epoch_order(Index count, std::uint64_t seed, Index epoch) {
  const CounterRandom random = CounterRandom(seed, kOrderStream).substream(static_cast<std::uint64_t>(epoch));
  std::vector<Index> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), Index{0});
  for (std::size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[random.below(i, i)]);
  }
  return order;
}

TrainingResult train(const DataSet& data, const TrainingOptions& options, const Arm& arm, MPI_Comm comm,
                     const Observer& observer) {
  check_options(options, data);
  TrainingResult result;
  if (arm.kind == Arm::Kind::single) {
    Observer alone = observer;  // the others wait, for as long as it takes
    alone.on_step = [&](const StepRecord& record) {
      still_here(comm);
      observer.on_step(record);
    };
    on_first_rank(comm, [&] { result = run(data, options, ArmRanks(arm, comm), alone); });
  } else {
    result = run(data, options, ArmRanks(arm, comm), observer);
  }
  broadcast_result(comm, result);
  return result;
}

}  // namespace syncbn::train
