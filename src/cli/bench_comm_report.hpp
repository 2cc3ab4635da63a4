// SPDX-License-Identifier: MIT
// What syncbn bench --comm prints: lines of JSON, or tables.
#pragma once

#include <vector>

#include "bench.hpp"
#include "bench_comm_link.hpp"
#include "bench_comm_model.hpp"
#include "bench_comm_overlap.hpp"
#include "bench_comm_sync.hpp"

namespace syncbn::cli::bench {

/// Where the ranks are.
struct Ranks {
  int count = 1;
  int hosts = 1;
  bool is_oversubscribed = false;  ///< Some host has fewer processors than threads of ours.
  bool is_bound = true;            ///< No rank may run where it likes on its host.
};

/// Collective.
Ranks find_ranks(int threads, MPI_Comm comm);

/// For one rank: what is printed, it prints at once.
class CommReport {
 public:
  CommReport(const Options& options, const Ranks& ranks);
  void add(const std::vector<MessageCosts>& messages) const;
  void add(const std::vector<SyncCost>& costs, const std::vector<MessageCosts>& messages) const;
  void add(const std::vector<Overlap>& overlaps) const;
  /// The link, and what the model makes of it for 2 to 100,000 ranks.
  void add(const Link& link, const std::vector<MessageCosts>& messages) const;
  /// What one rank has nothing to say about.
  void say_alone() const;

 private:
  void print_model(const Link& link, const std::vector<MessageCosts>& messages) const;

  Options options_;
  Ranks ranks_;
};

}  // namespace syncbn::cli::bench
