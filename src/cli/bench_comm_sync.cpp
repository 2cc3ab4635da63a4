// SPDX-License-Identifier: MIT
#include "bench_comm_sync.hpp"

#include <memory>
#include <utility>

#include "agree.hpp"
#include "bench_turns.hpp"

namespace syncbn::cli::bench {
namespace {

/// All that is compared at one number of channels.
class Rivals {
 public:
  Rivals(const Options& options, Index channels, const Groups& groups, MPI_Comm comm)
      : channels_(channels),
        batch_(tiny_batch(options, channels, comm)),
        alone_(options, Communicator(), batch_),
        sums_(static_cast<std::size_t>(2 * channels + 1), 1.0),
        allreduce_([this, comm] {
          check_mpi(
              MPI_Allreduce(sums_.data(), results_.data(), static_cast<int>(sums_.size()), MPI_DOUBLE, MPI_SUM, comm),
              "MPI_Allreduce");
        }) {
    results_ = sums_;
    for (const auto& [exchange, communicator] : groups.groups) {
      layers_.push_back(std::make_unique<TinyLayer>(options, communicator, batch_));
      exchanges_.push_back(exchange);
    }
    for (const Pass pass : options.passes) passes_.push_back(contest(pass));
    // Backward passes need caches.
    alone_.run(Pass::forward);
    for (const auto& layer : layers_) layer->run(Pass::forward);
  }
  Rivals(const Rivals&) = delete;
  Rivals& operator=(const Rivals&) = delete;

  void enter(std::vector<Contestant*>& contestants) {
    contestants.push_back(&allreduce_);
    for (Entry& entry : passes_) {
      contestants.push_back(entry.alone.get());
      for (const auto& together : entry.together) contestants.push_back(together.get());
    }
  }

  void write_to(std::vector<SyncCost>& costs) const {
    const double allreduce = median(allreduce_.seconds);
    for (const Entry& entry : passes_) {
      for (std::size_t i = 0; i < exchanges_.size(); ++i) {
        costs.push_back(
            {channels_, entry.pass, exchanges_[i], difference(*entry.together[i], *entry.alone), allreduce});
      }
    }
  }

 private:
  struct Entry {
    Pass pass;
    std::unique_ptr<Contestant> alone;
    std::vector<std::unique_ptr<Contestant>> together;  // by exchange
  };

  Entry contest(Pass pass) {
    const auto contestant = [pass](TinyLayer& layer) {
      return std::make_unique<Contestant>([&layer, pass] { layer.run(pass); });
    };
    Entry entry{pass, contestant(alone_), {}};
    for (const auto& layer : layers_) entry.together.push_back(contestant(*layer));
    return entry;
  }

  /// Median over the rounds.
  static double difference(const Contestant& longer, const Contestant& shorter) {
    std::vector<double> differences;
    for (std::size_t round = 0; round < longer.round_seconds.size(); ++round) {
      differences.push_back(longer.round_seconds[round] - shorter.round_seconds[round]);
    }
    return median(std::move(differences));
  }

  Index channels_;
  Batch batch_;
  TinyLayer alone_;
  std::vector<Exchange> exchanges_;
  std::vector<std::unique_ptr<TinyLayer>> layers_;  // by exchange
  std::vector<double> sums_, results_;
  Contestant allreduce_;
  std::vector<Entry> passes_;
};

}  // namespace

std::vector<SyncCost> measure_sync(const Options& options, const Groups& groups, MPI_Comm comm) {
  std::vector<std::unique_ptr<Rivals>> all;
  std::vector<Contestant*> contestants;
  for (const Index channels : options.channels) {
    all.push_back(std::make_unique<Rivals>(options, channels, groups, comm));
    all.back()->enter(contestants);
  }
  take_turns(contestants, options.seconds * static_cast<double>(all.size()), comm, Rhythm::in_a_row);
  std::vector<SyncCost> costs;
  for (const auto& rivals : all) rivals->write_to(costs);
  return costs;
}

}  // namespace syncbn::cli::bench
