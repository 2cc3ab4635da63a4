// SPDX-License-Identifier: MIT
// How things are timed that shall be compared: in turn.
#pragma once

#include <functional>
#include <vector>

#include <mpi.h>

namespace syncbn::cli::bench {

/// One of several things that are timed in turn, on all ranks.
struct Contestant {
  explicit Contestant(std::function<void()> what) : run(std::move(what)) {}

  std::function<void()> run;
  std::vector<double> seconds;        ///< Of each repetition, of the slowest rank. Out.
  std::vector<double> round_seconds;  ///< Median of each round. Out.
};

/// How the repetitions of a turn follow each other.
enum class Rhythm {
  together,  ///< All ranks begin each repetition together.
  in_a_row,  ///< Only the first. For what takes no longer than the time by which ranks leave a barrier apart.
};

/// Times all contestants until `budget_seconds` are over, five rounds at least. In each round each has one turn, in an
/// order that is reversed from round to round, so that a drift of the machine favours nobody. A turn begins with a run
/// that is not timed (what the one before left in the caches is not this one's fault); then come as many as fit half a
/// millisecond, at least one. The slowest rank counts, in each repetition.
///
/// Collective. The times are the same on all ranks.
void take_turns(const std::vector<Contestant*>& contestants, double budget_seconds, MPI_Comm comm,
                Rhythm rhythm = Rhythm::together);

/// Of a list that is not empty; of two in the middle the greater.
double median(std::vector<double> values);
double lower_quartile(std::vector<double> values);
double mean(const std::vector<double>& values);
double least(const std::vector<double>& values);

}  // namespace syncbn::cli::bench
