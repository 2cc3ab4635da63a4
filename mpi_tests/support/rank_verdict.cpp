// SPDX-License-Identifier: MIT
#include "support/rank_verdict.hpp"

#include <chrono>
#include <cstdio>
#include <thread>

#include <sched.h>

#include "support/watchdog.hpp"

namespace syncbn::testing {
namespace {

std::string full_name(const ::testing::TestInfo& test) {
  return std::string(test.test_suite_name()) + "." + test.name();
}

/// "1, 3"
std::string ranks_where(const std::vector<RankReport>& reports, bool (*condition)(const RankReport&)) {
  std::string list;
  for (std::size_t r = 0; r < reports.size(); ++r) {
    if (condition(reports[r])) list += (list.empty() ? "" : ", ") + std::to_string(r);
  }
  return list;
}

}  // namespace

RankGroup::RankGroup() {
  PMPI_Comm_dup(MPI_COMM_WORLD, &comm_);
  PMPI_Comm_rank(comm_, &rank_);
  PMPI_Comm_size(comm_, &size_);
}

void RankGroup::free() { PMPI_Comm_free(&comm_); }

std::vector<RankReport> RankGroup::exchange(const RankReport& mine) const {
  constexpr int kBytes = sizeof(RankReport);
  std::vector<RankReport> reports(static_cast<std::size_t>(size_));
  MPI_Request request = MPI_REQUEST_NULL;
  PMPI_Iallgather(&mine, kBytes, MPI_BYTE, reports.data(), kBytes, MPI_BYTE, comm_, &request);
  // Not MPI_Wait: with more ranks than cores MPICH would spin through its time slices.
  for (int done = 0; done == 0; sched_yield()) PMPI_Test(&request, &done, MPI_STATUS_IGNORE);

  for (const RankReport& report : reports) {
    const RankReport& first = reports.front();
    if (report.moment != first.moment || report.tests != first.tests || report.name != first.name) {
      end_disagreement(reports);
    }
  }
  return reports;
}

void RankGroup::end_disagreement(const std::vector<RankReport>& reports) const {
  if (rank_ == 0) {
    std::printf("[verdict] FAILED: the ranks do not run the same tests\n");
    for (std::size_t r = 0; r < reports.size(); ++r) {
      const RankReport& report = reports[r];
      std::printf("  rank %zu: %s, %d tests\n", r,
                  report.moment == RankReport::test_end ? report.name.data() : "at the end of the program",
                  report.tests);
    }
    std::fflush(stdout);
    // An abort may overtake what was printed: MPICH's launcher then drops it.
    std::this_thread::sleep_for(std::chrono::seconds(1));
    PMPI_Abort(MPI_COMM_WORLD, 1);
  }
  // Rank 0 ends the job after it has spoken; the watchdog ends it if rank 0 cannot.
  for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
}

void RankListener::OnTestStart(const ::testing::TestInfo& test) {
  watchdog_.set_activity("is still in " + full_name(test));
}

void RankListener::OnTestPartResult(const ::testing::TestPartResult& result) {
  if (!result.failed() || group_.rank() == 0 || speaks_of_others_) return;
  // One call, so that the lines of several ranks do not mix.
  std::fprintf(stderr, "[rank %d] %s:%d: Failure\n%s\n", group_.rank(),
               result.file_name() != nullptr ? result.file_name() : "unknown file", result.line_number(),
               result.message());
  std::fflush(stderr);
}

// GoogleTest calls the listeners' OnTestEnd in reverse order: what is added here, the printer of rank 0 already shows.
void RankListener::OnTestEnd(const ::testing::TestInfo& test) {
  const std::string name = full_name(test);
  watchdog_.set_activity("has finished " + name + " and still waits for the other ranks");

  RankReport mine;
  mine.failed = test.result()->Failed() ? 1 : 0;
  mine.skipped = test.result()->Skipped() ? 1 : 0;
  mine.tests = ++tests_finished_;
  name.copy(mine.name.data(), mine.name.size() - 1);
  const std::vector<RankReport> reports = group_.exchange(mine);

  const std::string failed = ranks_where(reports, [](const RankReport& r) { return r.failed != 0; });
  const std::string skipped = ranks_where(reports, [](const RankReport& r) { return r.skipped != 0; });
  const std::string ran = ranks_where(reports, [](const RankReport& r) { return r.skipped == 0; });
  speaks_of_others_ = true;
  if (!failed.empty() && mine.failed == 0) ADD_FAILURE_AT(test.file(), test.line()) << "failed on rank " << failed;
  if (failed.empty() && !skipped.empty() && !ran.empty()) {
    ADD_FAILURE_AT(test.file(), test.line()) << "skipped on rank " << skipped << ", but not on rank " << ran;
  }
  speaks_of_others_ = false;
  watchdog_.set_activity("has finished " + name + " and not begun another test");
}

}  // namespace syncbn::testing
