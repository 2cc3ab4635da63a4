// SPDX-License-Identifier: MIT
#include "bench_report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <string>

#include <nlohmann/json.hpp>

#include "syncbn/version.hpp"

namespace syncbn::cli::bench {
namespace {

/// From here on neither x nor y stays in the caches of today's cores.
constexpr double kLargeMegabytes = 12.0;

double geometric_mean(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) sum += std::log(value);
  return std::exp(sum / static_cast<double>(values.size()));
}

void print_summary(const char* name, const std::vector<double>& values) {
  if (values.empty()) return;
  std::printf("  %-18s %6.3f  (%zu cases, %.3f to %.3f)\n", name, geometric_mean(values), values.size(),
              *std::min_element(values.begin(), values.end()), *std::max_element(values.begin(), values.end()));
}

}  // namespace

Report::Report(const Options& options, int ranks) : options_(options), ranks_(ranks) {
  if (options.json) return;
  const bool is_fused = options.fused.has_relu() || options.fused.residual;
  std::printf("%d %s, %d %s each, %s%s%s, kernels for %s; ms, the slowest rank counts\n\n", ranks,
              ranks == 1 ? "rank" : "ranks", options.threads, options.threads == 1 ? "thread" : "threads",
              name_of(options.dtype), is_fused ? ", fused with " : "", is_fused ? name_of(options.fused) : "",
              instruction_set());
  std::printf("%-16s %-6s %-8s %-12s %10s %10s %10s %8s %7s", "shape", "layout", "pass", "reduction", "median", "min",
              "limit", "of limit", "GB/s");
  std::printf(ranks > 1 ? " %10s %10s\n" : "\n", "allreduce", "overhead");
}

void Report::add(const Measurement& measurement) {
  measurements_.push_back(measurement);
  options_.json ? print_json(measurement) : print_row(measurement);
}

void Report::print_json(const Measurement& m) const {
  nlohmann::ordered_json line{{"who", "syncbn"},
                              {"ranks", ranks_},
                              {"threads", options_.threads},
                              {"reduction", name_of(m.reduction)},
                              {"layout", field_name_of(m.layout)},
                              {"shape", {m.shape.n, m.shape.c, m.shape.h, m.shape.w}},
                              {"dtype", name_of(options_.dtype)},
                              {"pass", name_of(m.pass)},
                              {"fused", name_of(options_.fused)},
                              {"median_ms", m.median_ms},
                              {"min_ms", m.min_ms},
                              {"limit_ms", m.limit_ms},
                              {"allreduce_ms", m.allreduce_ms},
                              {"isa", instruction_set()},
                              {"limit_fraction", m.limit_fraction()},
                              {"bytes", m.bytes},
                              {"sync_overhead_ms", m.sync_overhead_ms}};
  if (m.to_fast) line["ratio_to_fast"] = *m.to_fast;
  std::cout << line.dump() << std::endl;
}

void Report::print_row(const Measurement& m) const {
  std::printf("%-16s %-6s %-8s %-12s %10.4f %10.4f %10.4f %8.2f %7.1f", text_of(m.shape).c_str(),
              field_name_of(m.layout), name_of(m.pass), name_of(m.reduction), m.median_ms, m.min_ms, m.limit_ms,
              m.limit_fraction(), m.bytes * 1e-6 / m.median_ms);
  if (ranks_ > 1) std::printf(" %10.4f %10.4f", m.allreduce_ms, m.sync_overhead_ms);
  std::printf("\n");
  std::fflush(stdout);
}

void Report::finish() const {
  if (options_.json) return;
  std::vector<double> planes, small_planes, rows, large;
  for (const Measurement& m : measurements_) {
    if (m.to_fast) {
      const Index positions = m.shape.positions();
      (positions >= 49 ? planes : positions > 1 ? small_planes : rows).push_back(*m.to_fast);
    }
    if (m.megabytes >= kLargeMegabytes && m.reduction == options_.reductions.front()) {
      large.push_back(m.limit_fraction());
    }
  }
  if (!planes.empty() || !small_planes.empty() || !rows.empty()) {
    std::printf("\nReproducible over fast, geometric means of the medians of ratios taken in turn\n");
    print_summary("49 positions up", planes);
    print_summary("2 to 48 positions", small_planes);
    print_summary("2-D", rows);
  }
  if (!large.empty()) {
    std::printf("\nFraction of the memory limit where x has 12 MB and more, %s\n",
                name_of(options_.reductions.front()));
    print_summary("all", large);
  }
}

}  // namespace syncbn::cli::bench
