// SPDX-License-Identifier: MIT
// Makes one verdict out of what the ranks of a test program saw.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <mpi.h>

namespace syncbn::testing {

class Watchdog;

/// What a rank tells the others at the end of each test, and at the end of the program. Fixed size, trivially copyable.
struct RankReport {
  enum Moment : std::int32_t { test_end = 1, program_end = 2 };

  Moment moment = test_end;
  std::int32_t failed = 0;       ///< This test, or anything in the program.
  std::int32_t tests = 0;        ///< Tests finished so far, or tests selected.
  std::int32_t skipped = 0;      ///< This test, or how many.
  std::array<char, 112> name{};  ///< Suite.Test
};

/// All ranks of the test program, on a communicator of its own.
class RankGroup {
 public:
  RankGroup();
  void free();

  int rank() const { return rank_; }
  int size() const { return size_; }

  /// Every rank's report. Does not return when the ranks do not stand at the same test: prints where they stand and
  /// ends the program on all ranks. Collective; through PMPI, so that no counter of a test sees it.
  std::vector<RankReport> exchange(const RankReport& mine) const;

 private:
  [[noreturn]] void end_disagreement(const std::vector<RankReport>& reports) const;

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
};

/// Listens to GoogleTest on one rank. A test that fails on one rank fails on all; ranks other than 0 print their own
/// failures only.
class RankListener : public ::testing::EmptyTestEventListener {
 public:
  RankListener(const RankGroup& group, Watchdog& watchdog) : group_(group), watchdog_(watchdog) {}

 private:
  void OnTestStart(const ::testing::TestInfo& test) override;
  void OnTestPartResult(const ::testing::TestPartResult& result) override;
  void OnTestEnd(const ::testing::TestInfo& test) override;

  const RankGroup& group_;
  Watchdog& watchdog_;
  std::int32_t tests_finished_ = 0;
  bool speaks_of_others_ = false;  ///< The failure being added is another rank's, which prints it itself.
};

}  // namespace syncbn::testing
