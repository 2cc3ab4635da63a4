// SPDX-License-Identifier: MIT
#include "bench_turns.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <utility>

#include "agree.hpp"

namespace syncbn::cli::bench {
namespace {

constexpr int kLeastRounds = 5;
constexpr double kTurnSeconds = 0.5e-3;
constexpr double kMostRepetitions = 16.0;

class Turns {
 public:
  Turns(MPI_Comm comm, Rhythm rhythm) : comm_(comm), is_alone_(size_of(comm) == 1), rhythm_(rhythm) {}

  void take(Contestant& contestant) const {
    start_together();
    const double first = slowest({time_of(contestant)}).front();
    const double fitting = std::clamp(std::floor(kTurnSeconds / std::max(first, 1e-9)), 1.0, kMostRepetitions);
    std::vector<double> seconds(static_cast<std::size_t>(fitting));
    start_together();
    for (double& repetition : seconds) {
      if (rhythm_ == Rhythm::together) start_together();
      repetition = time_of(contestant);
    }
    seconds = slowest(std::move(seconds));
    contestant.seconds.insert(contestant.seconds.end(), seconds.begin(), seconds.end());
    contestant.round_seconds.push_back(median(std::move(seconds)));
  }

  /// What rank 0 says, on all ranks.
  bool agree_with_first(bool answer) const {
    if (is_alone_) return answer;
    int value = answer ? 1 : 0;
    check_mpi(MPI_Bcast(&value, 1, MPI_INT, 0, comm_), "MPI_Bcast");
    return value != 0;
  }

 private:
  void start_together() const {
    if (!is_alone_) check_mpi(MPI_Barrier(comm_), "MPI_Barrier");
  }

  static double time_of(const Contestant& contestant) {
    const double start = MPI_Wtime();
    contestant.run();
    return MPI_Wtime() - start;
  }

  std::vector<double> slowest(std::vector<double> seconds) const {
    if (is_alone_) return seconds;
    check_mpi(MPI_Allreduce(MPI_IN_PLACE, seconds.data(), static_cast<int>(seconds.size()), MPI_DOUBLE, MPI_MAX, comm_),
              "MPI_Allreduce");
    return seconds;
  }

  MPI_Comm comm_;
  bool is_alone_;
  Rhythm rhythm_;
};

/// In order of size, from 0.
double nth(std::vector<double> values, std::size_t place) {
  const auto wanted = values.begin() + static_cast<std::ptrdiff_t>(place);
  std::nth_element(values.begin(), wanted, values.end());
  return *wanted;
}

}  // namespace

void take_turns(const std::vector<Contestant*>& contestants, double budget_seconds, MPI_Comm comm, Rhythm rhythm) {
  const Turns turns(comm, rhythm);
  const double start = MPI_Wtime();
  std::vector<Contestant*> order = contestants;
  for (int round = 0; turns.agree_with_first(round < kLeastRounds || MPI_Wtime() - start < budget_seconds); ++round) {
    for (Contestant* contestant : order) turns.take(*contestant);
    std::reverse(order.begin(), order.end());
  }
}

double median(std::vector<double> values) {
  const std::size_t place = values.size() / 2;
  return nth(std::move(values), place);
}

double lower_quartile(std::vector<double> values) {
  const std::size_t place = values.size() / 4;
  return nth(std::move(values), place);
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double least(const std::vector<double>& values) { return *std::min_element(values.begin(), values.end()); }

}  // namespace syncbn::cli::bench
