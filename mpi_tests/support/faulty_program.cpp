// SPDX-License-Identifier: MIT
// Tests with a fault on one rank each, for verdict_test.sh to select one by one. Rank 1 is the one at fault.
#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <thread>

#include <gtest/gtest.h>
#include <mpi.h>
#include <unistd.h>

namespace {

bool at_fault() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank == 1;
}

TEST(Faulty, HasNoFault) {
  int one = 1;
  int sum = 0;
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  EXPECT_EQ(sum, size);
}

TEST(Faulty, HasNoFaultEither) { SUCCEED(); }

TEST(Faulty, FailsOnOneRank) { EXPECT_FALSE(at_fault()) << "as it should"; }

TEST(Faulty, ThrowsOnOneRank) {
  if (at_fault()) throw std::runtime_error("as it should");
}

TEST(Faulty, ExitsWithZero) {
  if (at_fault()) std::exit(0);
}

TEST(Faulty, ExitsWithZeroAtOnce) {
  if (at_fault()) ::_exit(0);
}

TEST(Faulty, EveryRankExitsWithZeroAtOnce) { ::_exit(0); }

TEST(Faulty, Aborts) {
  if (at_fault()) std::abort();
}

TEST(Faulty, Hangs) {
  if (at_fault()) std::this_thread::sleep_for(std::chrono::hours(1));
}

TEST(Faulty, IsSkipped) { GTEST_SKIP() << "as it should"; }

TEST(Faulty, IsSkippedOnOneRank) {
  if (at_fault()) GTEST_SKIP() << "as it should";
}

class FaultySuite : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { EXPECT_FALSE(at_fault()) << "as it should"; }
};

TEST_F(FaultySuite, FailsInSetUpOnOneRank) { SUCCEED(); }

}  // namespace
