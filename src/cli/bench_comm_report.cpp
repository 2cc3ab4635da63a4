// SPDX-License-Identifier: MIT
#include "bench_comm_report.hpp"

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>
#include <sched.h>
#include <unistd.h>

#include "agree.hpp"
#include "syncbn/version.hpp"

namespace syncbn::cli::bench {
namespace {

constexpr int kModelRanks[] = {2, 4, 8, 16, 32, 64, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
constexpr Algorithm kAlgorithms[] = {Algorithm::doubling, Algorithm::tree, Algorithm::linear};
constexpr Index kModelChannels[] = {64, 512, 2048};

double us(double seconds) { return 1e6 * seconds; }

void print_line(const nlohmann::ordered_json& line) { std::cout << line.dump() << std::endl; }

const MessageCosts& of_channels(const std::vector<MessageCosts>& messages, Index channels) {
  return *std::find_if(messages.begin(), messages.end(), [&](const auto& m) { return m.channels == channels; });
}

/// The tables would be too wide with all: three of those that were measured.
std::vector<MessageCosts> modelled(const std::vector<MessageCosts>& messages) {
  std::vector<MessageCosts> some;
  for (const MessageCosts& message : messages) {
    if (std::count(std::begin(kModelChannels), std::end(kModelChannels), message.channels)) some.push_back(message);
  }
  if (some.empty()) some.assign(messages.begin(), messages.begin() + std::min<std::ptrdiff_t>(3, std::ssize(messages)));
  return some;
}

/// May this process run on some processors of the host only?
bool is_bound_here() {
  cpu_set_t processors;
  CPU_ZERO(&processors);
  return sched_getaffinity(0, sizeof processors, &processors) == 0 &&
         CPU_COUNT(&processors) < sysconf(_SC_NPROCESSORS_ONLN);
}

}  // namespace

Ranks find_ranks(int threads, MPI_Comm comm) {
  MPI_Comm on_host = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &on_host), "MPI_Comm_split_type");
  const int ranks_here = size_of(on_host);
  int hosts = rank_of(on_host) == 0 ? 1 : 0;
  int has_too_many = ranks_here * threads > sysconf(_SC_NPROCESSORS_ONLN) ? 1 : 0;
  int is_free = is_bound_here() ? 0 : 1;
  check_mpi(MPI_Comm_free(&on_host), "MPI_Comm_free");
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &hosts, 1, MPI_INT, MPI_SUM, comm), "MPI_Allreduce");
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &has_too_many, 1, MPI_INT, MPI_MAX, comm), "MPI_Allreduce");
  check_mpi(MPI_Allreduce(MPI_IN_PLACE, &is_free, 1, MPI_INT, MPI_MAX, comm), "MPI_Allreduce");
  return {size_of(comm), hosts, has_too_many != 0, is_free == 0};
}

CommReport::CommReport(const Options& options, const Ranks& ranks) : options_(options), ranks_(ranks) {
  if (options.json) return;
  std::printf("%d %s on %d %s, %d %s each, %s %s, kernels for %s; us, medians, the slowest rank counts\n", ranks.count,
              ranks.count == 1 ? "rank" : "ranks", ranks.hosts, ranks.hosts == 1 ? "host" : "hosts", options.threads,
              options.threads == 1 ? "thread" : "threads", name_of(options.reductions.front()), name_of(options.dtype),
              instruction_set());
  if (ranks.is_oversubscribed) {
    std::printf("More threads than processors: they wait for each other to be scheduled\n");
  } else if (ranks.count > 1 && !ranks.is_bound) {
    std::printf("Ranks are not bound to cores: two that meet on one wait for each other (mpirun --bind-to core)\n");
  }
}

void CommReport::add(const std::vector<MessageCosts>& messages) const {
  if (!options_.json) {
    std::printf(
        "\nA layer's message without transport: a forward pass of 2 rows alone, one more message merged, and what a\n"
        "round takes beside\n%8s %8s %10s %10s %10s\n",
        "channels", "bytes", "alone", "merge", "round");
  }
  for (const MessageCosts& m : messages) {
    if (options_.json) {
      print_line({{"who", "syncbn"},
                  {"what", "message"},
                  {"ranks", ranks_.count},
                  {"channels", m.channels},
                  {"bytes", m.message.bytes},
                  {"alone_us", us(m.local)},
                  {"merge_us", us(m.message.merge)},
                  {"round_us", us(m.message.round)}});
    } else {
      std::printf("%8lld %8zu %10.2f %10.2f %10.2f\n", static_cast<long long>(m.channels), m.message.bytes, us(m.local),
                  us(m.message.merge), us(m.message.round));
    }
  }
}

void CommReport::add(const std::vector<SyncCost>& costs, const std::vector<MessageCosts>& messages) const {
  if (!options_.json) {
    std::printf(
        "\nSynchronizing: a pass of 2 rows a rank over all ranks, less one of each rank alone, beside one blocking\n"
        "MPI_Allreduce(MPI_SUM) of 2C+1 doubles\n%8s %8s  %-8s  %-10s %10s %10s %7s\n",
        "channels", "bytes", "pass", "exchange", "sync", "allreduce", "ratio");
  }
  for (const SyncCost& c : costs) {
    const std::size_t bytes = of_channels(messages, c.channels).message.bytes;
    if (options_.json) {
      print_line({{"who", "syncbn"},
                  {"what", "sync"},
                  {"ranks", ranks_.count},
                  {"hosts", ranks_.hosts},
                  {"oversubscribed", ranks_.is_oversubscribed},
                  {"bound", ranks_.is_bound},
                  {"channels", c.channels},
                  {"exchange", name_of(c.exchange)},
                  {"pass", name_of(c.pass)},
                  {"median_us", us(c.seconds)},
                  {"allreduce_us", us(c.allreduce)},
                  {"ratio", c.ratio()},
                  {"bytes", bytes}});
    } else {
      std::printf("%8lld %8zu  %-8s  %-10s %10.2f %10.2f %7.2f\n", static_cast<long long>(c.channels), bytes,
                  name_of(c.pass), name_of(c.exchange), us(c.seconds), us(c.allreduce), c.ratio());
    }
  }
}

void CommReport::add(const std::vector<Overlap>& overlaps) const {
  if (!options_.json) {
    std::printf(
        "\nWaiting in finish_forward_train(), median (lower quartile, mean): straight after begin, after %g ms of\n"
        "computing, and with %d calls of progress() in these\n%8s  %-10s %25s %25s %25s\n",
        1e3 * kComputeSeconds, kProgressCalls, "channels", "exchange", "at once", "computing", "progress()");
  }
  for (const Overlap& o : overlaps) {
    const std::pair<const char*, Wait> waits[] = {
        {"wait", o.at_once}, {"residual", o.after_computing}, {"progress_residual", o.after_progress_calls}};
    if (options_.json) {
      nlohmann::ordered_json line{{"who", "syncbn"},
                                  {"what", "overlap"},
                                  {"ranks", ranks_.count},
                                  {"hosts", ranks_.hosts},
                                  {"oversubscribed", ranks_.is_oversubscribed},
                                  {"bound", ranks_.is_bound},
                                  {"channels", o.channels},
                                  {"exchange", name_of(o.exchange)},
                                  {"compute_ms", 1e3 * kComputeSeconds},
                                  {"progress_calls", kProgressCalls}};
      for (const auto& [name, wait] : waits) {
        line[std::string(name) + "_us"] = us(wait.median);
        line[std::string(name) + "_quartile_us"] = us(wait.quartile);
        line[std::string(name) + "_mean_us"] = us(wait.mean);
      }
      print_line(line);
      continue;
    }
    std::printf("%8lld  %-10s", static_cast<long long>(o.channels), name_of(o.exchange));
    for (const auto& [name, wait] : waits) {
      char text[64];
      std::snprintf(text, sizeof text, "%.1f (%.1f, %.1f)", us(wait.median), us(wait.quartile), us(wait.mean));
      std::printf(" %25s", text);
    }
    std::printf("\n");
  }
}

void CommReport::add(const Link& link, const std::vector<MessageCosts>& messages) const {
  if (options_.json) {
    print_line({{"who", "syncbn"},
                {"what", "link"},
                {"ranks", ranks_.count},
                {"hosts", ranks_.hosts},
                {"latency_us", us(link.latency)},
                {"overhead_us", us(link.overhead)},
                {"gap_us", us(link.gap)},
                {"gap_per_byte_ns", 1e9 * link.gap_per_byte}});
  } else {
    std::printf("\nLogGP, between ranks 0 and %d: L %.3g us, o %.3g us, g %.3g us, G %.3g ns a byte\n",
                ranks_.count - 1, us(link.latency), us(link.overhead), us(link.gap), 1e9 * link.gap_per_byte);
  }
  print_model(link, modelled(messages));
}

void CommReport::print_model(const Link& link, const std::vector<MessageCosts>& messages) const {
  if (!options_.json) {
    std::printf(
        "It predicts, for all-reduce by recursive doubling (MPICH), by a tree up and down (Open MPI), and for a "
        "linear\n"
        "all-gather (Open MPI) with merging, were all links like this one and nobody's but theirs:\n%8s",
        "");
    for (const MessageCosts& m : messages) {
      char text[64];
      std::snprintf(text, sizeof text, "C = %lld, %zu bytes", static_cast<long long>(m.channels), m.message.bytes);
      std::printf(" |%32s", text);
    }
    std::printf("\n%8s", "ranks");
    for (std::size_t i = 0; i < messages.size(); ++i) std::printf(" |%10s %10s %10s", "doubling", "tree", "linear");
    std::printf("\n");
  }
  for (const int ranks : kModelRanks) {
    if (!options_.json) std::printf("%8d", ranks);
    for (const MessageCosts& m : messages) {
      if (!options_.json) std::printf(" |");
      for (const Algorithm algorithm : kAlgorithms) {
        const double predicted = us(predicted_seconds(algorithm, ranks, link, m.message));
        if (options_.json) {
          print_line({{"who", "syncbn"},
                      {"what", "model"},
                      {"ranks", ranks},
                      {"channels", m.channels},
                      {"algorithm", name_of(algorithm)},
                      {"predicted_us", predicted},
                      {"bytes", m.message.bytes}});
        } else {
          std::printf("%s%10.4g", algorithm == Algorithm::doubling ? "" : " ", predicted);
        }
      }
    }
    if (!options_.json) std::printf("\n");
  }
}

void CommReport::say_alone() const {
  if (options_.json) return;
  std::printf(
      "\nOne rank sends nothing: synchronizing, overlap and latency are measured under mpirun, with -n 2 or more\n");
}

}  // namespace syncbn::cli::bench
