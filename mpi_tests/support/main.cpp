// SPDX-License-Identifier: MIT
// main() of the tests that run under mpirun. One verdict for all ranks, the same exit code everywhere, and a last line
// of rank 0 without which a run counts as failed (check_verdict.sh): a rank that leaves early with exit code 0 is not a
// pass.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <mpi.h>
#include <unistd.h>

#include "support/rank_verdict.hpp"
#include "support/watchdog.hpp"

namespace {

using syncbn::testing::RankGroup;
using syncbn::testing::RankListener;
using syncbn::testing::RankReport;
using syncbn::testing::Watchdog;

constexpr int kLeftEarly = 86;

/// Sends out what was printed. The launcher ends a job at the first exit code that is not 0, and may drop what it has not
/// read by then.
void let_launcher_read() {
  std::fflush(stdout);
  std::fflush(stderr);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
}

/// Registered with atexit: exit() inside a test, whatever its code, ends the job as a failure.
void end_if_left_early() {
  int finalized = 0;
  PMPI_Finalized(&finalized);
  if (finalized) return;
  int rank = 0;
  PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
  std::fprintf(stderr, "[rank %d] left the program before the end of its tests\n", rank);
  let_launcher_read();
  ::_exit(kLeftEarly);
}

void listen(const RankGroup& group, Watchdog& watchdog) {
  auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
  if (group.rank() != 0) {
    delete listeners.Release(listeners.default_result_printer());
    delete listeners.Release(listeners.default_xml_generator());  // one file, one writer
  }
  listeners.Append(new RankListener(group, watchdog));
}

/// What all ranks agree on after the last test.
struct Verdict {
  bool passed = false;
  std::string line;
};

Verdict agree(const RankGroup& group, bool failed_here) {
  const auto& tests = *::testing::UnitTest::GetInstance();
  RankReport mine;
  mine.moment = RankReport::program_end;
  mine.failed = failed_here ? 1 : 0;
  mine.tests = tests.test_to_run_count();
  mine.skipped = tests.skipped_test_count();
  const std::vector<RankReport> reports = group.exchange(mine);

  const bool failed = std::any_of(reports.begin(), reports.end(), [](const RankReport& r) { return r.failed != 0; });
  const std::string on_ranks = " on " + std::to_string(group.size()) + " ranks";
  const std::string counts =
      " (" + std::to_string(mine.tests) + " tests, " + std::to_string(mine.skipped) + " skipped)";
  if (failed) {
    return {false, "FAILED" + on_ranks + ": " + std::to_string(tests.failed_test_count()) + " of " +
                       std::to_string(mine.tests) + " tests"};
  }
  if (mine.tests == 0) return {false, "FAILED" + on_ranks + ": no test was selected"};
  if (mine.skipped == mine.tests) return {true, "skipped" + on_ranks + counts};
  return {true, "passed" + on_ranks + counts};
}

}  // namespace

int main(int argc, char** argv) {
  int thread_level = MPI_THREAD_SINGLE;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &thread_level);
  std::atexit(end_if_left_early);
  ::testing::InitGoogleTest(&argc, argv);

  RankGroup group;
  std::optional<Watchdog> watchdog;
  try {
    watchdog.emplace(Watchdog::limit_from_environment(), "[rank " + std::to_string(group.rank()) + "]");
  } catch (const std::exception& error) {
    if (group.rank() == 0) std::fprintf(stderr, "%s\n", error.what());
    let_launcher_read();
    MPI_Finalize();
    return 2;
  }

  Verdict verdict;
  if (GTEST_FLAG_GET(list_tests)) {
    verdict.passed = group.rank() != 0 || RUN_ALL_TESTS() == 0;
  } else {
    listen(group, *watchdog);
    const bool failed_here = RUN_ALL_TESTS() != 0;
    watchdog->set_activity("has finished its tests and still waits for the other ranks");
    verdict = agree(group, failed_here);
  }

  watchdog->set_activity("is still in MPI_Finalize");
  const int rank = group.rank();
  const auto print_verdict = [&] {
    if (rank == 0 && !verdict.line.empty()) std::printf("[verdict] %s\n", verdict.line.c_str());
  };
  group.free();
  if (!verdict.passed) {  // before MPI_Finalize, which makes all ranks wait until the launcher has read it
    print_verdict();
    let_launcher_read();
  }
  MPI_Finalize();
  if (verdict.passed) print_verdict();
  std::fflush(stdout);
  return verdict.passed ? 0 : 1;
}
