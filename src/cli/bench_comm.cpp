// SPDX-License-Identifier: MIT
#include "bench_comm.hpp"

#include <cstdio>
#include <optional>

#include "agree.hpp"
#include "bench_comm_report.hpp"
#include "command.hpp"

namespace syncbn::cli::bench {

int run_comm(const Options& options, MPI_Comm comm) {
  const Ranks ranks = find_ranks(options.threads, comm);
  const std::vector<MessageCosts> messages = measure_messages(options, comm);
  std::optional<CommReport> report;
  if (rank_of(comm) == 0) report.emplace(options, ranks);
  if (report) report->add(messages);
  if (ranks.count == 1) {
    report->say_alone();
    return kOk;
  }

  const Groups groups(comm);
  const std::vector<SyncCost> costs = measure_sync(options, groups, comm);
  if (report) report->add(costs, messages);
  const std::vector<Overlap> overlaps = measure_overlap(options, groups, comm);
  if (report) report->add(overlaps);
  const Link link = measure_link(comm);
  if (report) report->add(link, messages);
  return kOk;
}

}  // namespace syncbn::cli::bench
