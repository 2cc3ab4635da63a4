// SPDX-License-Identifier: MIT
// What syncbn bench prints: lines of JSON, or a table and a summary.
#pragma once

#include <optional>
#include <vector>

#include "bench.hpp"

namespace syncbn::cli::bench {

/// One line: a layer with one reduction, one shape, layout and pass. Times in ms, of the slowest rank.
struct Measurement {
  Shape shape;
  Layout layout = Layout::channels_first;
  Pass pass = Pass::forward;
  Reduction reduction = Reduction::reproducible;
  double median_ms = 0.0;
  double min_ms = 0.0;
  double limit_ms = 0.0;
  double allreduce_ms = 0.0;      ///< The layer's message alone; 0 on one rank, where there is none.
  double sync_overhead_ms = 0.0;  ///< Beyond a layer of each rank by itself; 0 on one rank.
  double bytes = 0.0;      ///< Moved by all ranks at the limit: 3 tensors forward, 4 with a residual; 5 backward, 7
                           ///< behind a ReLU.
  double megabytes = 0.0;  ///< Of x.
  std::optional<double> to_fast;  ///< Median over the rounds of this time over Reduction::fast's.

  double limit_fraction() const noexcept { return median_ms > 0.0 ? limit_ms / median_ms : 0.0; }
};

/// Prints on rank 0, as the measurements come.
class Report {
 public:
  Report(const Options& options, int ranks);
  void add(const Measurement& measurement);
  /// The summary, if there is a table.
  void finish() const;

 private:
  void print_json(const Measurement& measurement) const;
  void print_row(const Measurement& measurement) const;

  Options options_;
  int ranks_;
  std::vector<Measurement> measurements_;
};

}  // namespace syncbn::cli::bench
