// SPDX-License-Identifier: MIT
#include "support/collective_counter.hpp"

#include <stdexcept>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <mpi.h>

namespace syncbn::testing {
namespace {

int world_size() {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

TEST(CollectiveCounter, CountsBlockingCollectives) {
  CollectiveCounter::reset();
  double one = 1;
  double sum = 0;
  MPI_Allreduce(&one, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  MPI_Allreduce(MPI_IN_PLACE, &one, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  MPI_Bcast(&one, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
  MPI_Barrier(MPI_COMM_WORLD);
  EXPECT_EQ(sum, world_size()) << "the call must still do its work";
  EXPECT_EQ(CollectiveCounter::count("MPI_Allreduce"), 2);
  EXPECT_EQ(CollectiveCounter::count("MPI_Bcast"), 1);
  EXPECT_EQ(CollectiveCounter::count("MPI_Iallreduce"), 0);
  EXPECT_EQ(CollectiveCounter::total_collectives(), 4);
  EXPECT_EQ(CollectiveCounter::total_point_to_point(), 0);
  EXPECT_EQ(CollectiveCounter::total_communicator_calls(), 0);
}

TEST(CollectiveCounter, CountsNonblockingCollectivesOnce) {
  CollectiveCounter::reset();
  const int mine = 7;
  std::vector<int> all(static_cast<std::size_t>(world_size()));
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Iallgather(&mine, 1, MPI_INT, all.data(), 1, MPI_INT, MPI_COMM_WORLD, &request);
  MPI_Wait(&request, MPI_STATUS_IGNORE);
  EXPECT_EQ(all.back(), 7);
  EXPECT_EQ(CollectiveCounter::summary(), "MPI_Iallgather 1");
  EXPECT_EQ(CollectiveCounter::total_collectives(), 1);
}

TEST(CollectiveCounter, CountsCommunicatorsApart) {
  CollectiveCounter::reset();
  MPI_Comm copy = MPI_COMM_NULL;
  MPI_Comm half = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &copy);
  MPI_Comm_split(copy, 0, 0, &half);
  MPI_Comm_free(&half);
  MPI_Comm_free(&copy);
  EXPECT_EQ(CollectiveCounter::total_communicator_calls(), 2);
  EXPECT_EQ(CollectiveCounter::total_collectives(), 0);
}

TEST(CollectiveCounter, CountsMessagesAtTheirSender) {
  CollectiveCounter::reset();
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const int out = rank;
  int in = -1;
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Isend(&out, 1, MPI_INT, (rank + 1) % world_size(), 0, MPI_COMM_WORLD, &request);
  MPI_Recv(&in, 1, MPI_INT, (rank + world_size() - 1) % world_size(), 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  MPI_Wait(&request, MPI_STATUS_IGNORE);
  EXPECT_EQ(in, (rank + world_size() - 1) % world_size());
  EXPECT_EQ(CollectiveCounter::summary(), "MPI_Isend 1");
  EXPECT_EQ(CollectiveCounter::total_point_to_point(), 1);
}

TEST(CollectiveCounter, CountsAllThreads) {
  CollectiveCounter::reset();
  constexpr int kThreads = 4;
  constexpr int kCalls = 250;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < kCalls; ++i) MPI_Barrier(MPI_COMM_SELF);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(CollectiveCounter::count("MPI_Barrier"), kThreads * kCalls);
}

TEST(CollectiveCounter, RefusesUnknownNames) {
  EXPECT_THROW(CollectiveCounter::count("MPI_Alreduce"), std::invalid_argument);
  EXPECT_THROW(CollectiveCounter::count("Allreduce"), std::invalid_argument);
}

}  // namespace
}  // namespace syncbn::testing
