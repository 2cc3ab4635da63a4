// SPDX-License-Identifier: MIT
#include "bench_comm_overlap.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "agree.hpp"
#include "bench_turns.hpp"

namespace syncbn::cli::bench {
namespace {

constexpr int kLeastRounds = 5;

struct Computing {
  double seconds = 0.0;
  int progress_calls = 0;
};

constexpr Computing kAtOnce{0.0, 0}, kComputing{kComputeSeconds, 0}, kWithCalls{kComputeSeconds, kProgressCalls};

void compute(const Computing& computing, TinyLayer& layer) {
  const double start = MPI_Wtime();
  const int slices = computing.progress_calls + 1;
  for (int slice = 1; slice <= slices; ++slice) {
    while (MPI_Wtime() - start < computing.seconds * slice / slices) {
    }
    if (slice < slices) layer.progress();
  }
}

/// One layer and what is done between its halves.
class Trial {
 public:
  Trial(TinyLayer& layer, const Computing& computing) : layer_(layer), computing_(computing) {}

  void run(MPI_Comm comm) {
    check_mpi(MPI_Barrier(comm), "MPI_Barrier");
    const double begin = MPI_Wtime();
    layer_.begin(Pass::forward);
    compute(computing_, layer_);
    const double start = MPI_Wtime();
    layer_.finish(Pass::forward);
    between_.push_back(start - begin - computing_.seconds);
    seconds_.push_back(MPI_Wtime() - start);
  }

  /// Collective. Where a rank has lost its processor while it computed, it is the other processes of the host that are
  /// waited for: these repetitions are left out, unless there are no others.
  void take_slowest(MPI_Comm comm) {
    for (std::vector<double>* times : {&seconds_, &between_}) {
      check_mpi(MPI_Allreduce(MPI_IN_PLACE, times->data(), static_cast<int>(times->size()), MPI_DOUBLE, MPI_MAX, comm),
                "MPI_Allreduce");
    }
    const double most = least(between_) + kLeastLoss;
    std::vector<double> undisturbed;
    for (std::size_t i = 0; i < seconds_.size(); ++i) {
      if (between_[i] < most) undisturbed.push_back(seconds_[i]);
    }
    seconds_ = std::move(undisturbed);
  }

  Wait beyond(const Trial& alone) const {
    const auto more = [](double longer, double shorter) { return std::max(0.0, longer - shorter); };
    return {more(median(seconds_), median(alone.seconds_)), more(mean(seconds_), mean(alone.seconds_)),
            more(lower_quartile(seconds_), lower_quartile(alone.seconds_))};
  }

 private:
  static constexpr double kLeastLoss = 0.5e-3;  // of time, by a processor that another process has

  TinyLayer& layer_;
  Computing computing_;
  std::vector<double> seconds_;  // in finish
  std::vector<double> between_;  // from the common begin to finish, beyond the computing
};

/// One number of channels: this rank alone, and each exchange.
class Case {
 public:
  Case(const Options& options, Index channels, const Groups& groups, MPI_Comm comm)
      : channels_(channels), batch_(tiny_batch(options, channels, comm)), alone_(options, Communicator(), batch_) {
    trials_.push_back(std::make_unique<Trial>(alone_, kAtOnce));
    trials_.push_back(std::make_unique<Trial>(alone_, kComputing));
    for (const auto& [exchange, communicator] : groups.groups) {
      layers_.push_back(std::make_unique<TinyLayer>(options, communicator, batch_));
      exchanges_.push_back(exchange);
      for (const Computing& computing : {kAtOnce, kComputing, kWithCalls}) {
        trials_.push_back(std::make_unique<Trial>(*layers_.back(), computing));
      }
    }
  }
  Case(const Case&) = delete;
  Case& operator=(const Case&) = delete;

  void run(MPI_Comm comm) {
    for (const auto& trial : trials_) trial->run(comm);
  }

  void write_to(std::vector<Overlap>& overlaps, MPI_Comm comm) {
    for (const auto& trial : trials_) trial->take_slowest(comm);
    const Trial& at_once = *trials_[0];
    const Trial& computing = *trials_[1];
    for (std::size_t i = 0; i < exchanges_.size(); ++i) {
      const auto trial = trials_.begin() + static_cast<std::ptrdiff_t>(2 + 3 * i);
      overlaps.push_back({channels_, exchanges_[i], trial[0]->beyond(at_once), trial[1]->beyond(computing),
                          trial[2]->beyond(computing)});
    }
  }

 private:
  Index channels_;
  Batch batch_;
  TinyLayer alone_;
  std::vector<std::unique_ptr<TinyLayer>> layers_;  // by exchange
  std::vector<Exchange> exchanges_;
  std::vector<std::unique_ptr<Trial>> trials_;  // two of alone_, then three of each layer
};

bool agree_with_first(bool answer, MPI_Comm comm) {
  int value = answer ? 1 : 0;
  check_mpi(MPI_Bcast(&value, 1, MPI_INT, 0, comm), "MPI_Bcast");
  return value != 0;
}

}  // namespace

std::vector<Overlap> measure_overlap(const Options& options, const Groups& groups, MPI_Comm comm) {
  std::vector<std::unique_ptr<Case>> cases;
  for (const Index channels : options.channels) {
    cases.push_back(std::make_unique<Case>(options, channels, groups, comm));
    cases.back()->run(comm);
  }
  const double budget = options.seconds * static_cast<double>(cases.size());
  const double start = MPI_Wtime();
  for (int round = 0; agree_with_first(round < kLeastRounds || MPI_Wtime() - start < budget, comm); ++round) {
    for (const auto& one : cases) one->run(comm);
  }
  std::vector<Overlap> overlaps;
  for (const auto& one : cases) one->write_to(overlaps, comm);
  return overlaps;
}

}  // namespace syncbn::cli::bench
