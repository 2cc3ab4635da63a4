// SPDX-License-Identifier: MIT
// Groups of k ranks: k is how many ranks share their statistics, not how many groups there are.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <stdexcept>
#include <thread>

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "layer/result_bytes.hpp"
#include "support/collective_counter.hpp"

namespace syncbn::testing {
namespace {

/// Bit r of a number that identifies a set of ranks.
double bit(int rank) { return std::ldexp(1.0, rank); }

/// The ranks begin to end-1.
double set_of(int begin, int end) { return bit(end) - bit(begin); }

/// Who shares statistics in `group`, as the layer has it: every rank brings a sample of 2^rank, so mean * count is the
/// set of ranks. Collective over the group.
double ranks_that_share(const Communicator& group) {
  BatchNorm layer({.num_features = 1, .parameter_type = DataType::f64}, group);
  Tensor<double> x(1, 1, {}, Layout::channels_first);
  x.values[0] = bit(world_rank());
  Tensor<double> y = x;
  const BatchNormCache cache = layer.forward_train(x.view(), y.view());
  EXPECT_EQ(cache.count, group.size());
  return std::nearbyint(cache.mean[0] * static_cast<double>(cache.count));
}

/// The same of ReproducibleSum.
double ranks_that_add(const Communicator& group) {
  ReproducibleSum sum;
  sum.add(0, bit(world_rank()));
  sum.all_reduce(group);
  return sum.value();
}

/// Is this rank number `rank` among the ranks of MPI_COMM_WORLD that `ranks` is the set of, and are there `size`?
void expect_group(const Communicator& group, int rank, int size, double ranks) {
  EXPECT_EQ(group.rank(), rank);
  EXPECT_EQ(group.size(), size);
  EXPECT_EQ(ranks_that_share(group), ranks);
  EXPECT_EQ(ranks_that_add(group), ranks);
}

TEST(Groups, GroupsOfKAreKConsecutiveRanks) {
  const int size = world_size();
  const int rank = world_rank();
  for (const int k : {1, 2, 3, size, size + 5, 1 << 30}) {
    SCOPED_TRACE("groups of " + std::to_string(k));
    const int begin = k < size ? rank / k * k : 0;
    const int end = k < size ? std::min(begin + k, size) : size;  // the last group may be smaller
    expect_group(Communicator::groups_of(k, MPI_COMM_WORLD), rank - begin, end - begin, set_of(begin, end));
  }
}

TEST(Groups, OneHostIsOneGroup) {
  const Communicator node = Communicator::per_node(MPI_COMM_WORLD);
  expect_group(node, world_rank(), world_size(), set_of(0, world_size()));
}

TEST(Groups, RanksCountInTheCommunicatorThatIsGiven) {
  // The ranks in the opposite order: groups of 2 are then the last two ranks of the world, the two before, ...
  const int size = world_size();
  MPI_Comm reversed = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, 0, -world_rank(), &reversed);
  const int rank = size - 1 - world_rank();
  const int begin = rank / 2 * 2;
  const int end = std::min(begin + 2, size);
  expect_group(Communicator::groups_of(2, reversed), rank - begin, end - begin, set_of(size - end, size - begin));
  MPI_Comm_free(&reversed);

  // Every second rank: pairs of neighbours among these.
  MPI_Comm half = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, world_rank() % 2, world_rank(), &half);
  const Communicator pair = Communicator::groups_of(2, half);
  MPI_Comm_free(&half);  // the group has its own
  const int first = world_rank() / 4 * 4 + world_rank() % 2;
  const bool has_second = first + 2 < size;
  expect_group(pair, (world_rank() - first) / 2, has_second ? 2 : 1, bit(first) + (has_second ? bit(first + 2) : 0));
}

TEST(Groups, AnotherKOnOneRankIsAnErrorOnAll) {
  if (world_size() == 1) GTEST_SKIP() << "needs 2 ranks";
  const int culprit = world_size() - 1;
  const int k = world_rank() == culprit ? 3 : 2;
  const Caught caught = error_of([&] { Communicator::groups_of(k, MPI_COMM_WORLD); });
  expect_same_error_everywhere(
      caught, ErrorCode::mismatch,
      {"rank " + std::to_string(culprit) + " of ", "wants groups of 3 ranks, rank 0 wants groups of 2 ranks"});

  const Caught mixed = error_of([&] {
    world_rank() == culprit ? Communicator::per_node(MPI_COMM_WORLD) : Communicator::groups_of(2, MPI_COMM_WORLD);
  });
  expect_same_error_everywhere(mixed, ErrorCode::mismatch, {"wants a group for each node, rank 0 wants groups of 2"});
}

TEST(Groups, LessThanOneRankIsAnErrorOnAll) {
  const int culprit = world_size() / 2;
  for (const int k : {0, -1, -4}) {
    const int mine = world_rank() == culprit ? k : 1;
    const Caught caught = error_of([&] { Communicator::groups_of(mine, MPI_COMM_WORLD); });
    expect_same_error_everywhere(caught, ErrorCode::option,
                                 {"groups of " + std::to_string(k) + " ranks are not possible", of_rank(culprit)});
  }
}

TEST(Groups, AGroupOfOneSendsNothing) {
  auto layer_case = make_case<float>({.seed = 91, .channels = 5}, inputs::split(inputs::Split::even, 12, world_size()));
  BatchNorm layer = make_layer(layer_case, Communicator::groups_of(1, MPI_COMM_WORLD));
  BatchNorm local = make_layer(layer_case, Communicator());
  CollectiveCounter::reset();
  const auto step = run_step(layer, layer_case);
  EXPECT_EQ(CollectiveCounter::total_collectives(), 0) << CollectiveCounter::summary();
  EXPECT_EQ(CollectiveCounter::total_point_to_point(), 0) << CollectiveCounter::summary();
  EXPECT_TRUE(same_bits(step_bytes(layer, step), step_bytes(local, run_step(local, layer_case)))) << "not local";
}

TEST(Groups, LayersOfDifferentGroupsAreInFlightTogether) {
  const Communicator groups[] = {Communicator(MPI_COMM_WORLD), Communicator::groups_of(2, MPI_COMM_WORLD),
                                 Communicator::groups_of(3, MPI_COMM_WORLD), Communicator()};
  auto layer_case = make_case<float>({.seed = 92, .channels = 5, .offset = 4},
                                     inputs::split(inputs::Split::uneven, 4 * world_size(), world_size()));
  std::vector<BatchNorm> split, blocking;
  std::vector<StepResult<float>> steps;
  for (const Communicator& group : groups) {
    split.push_back(make_layer(layer_case, group));
    blocking.push_back(make_layer(layer_case, group));
    steps.push_back({zeros_like<float>(layer_case.my_x()), zeros_like<float>(layer_case.my_x()), {}, {}});
  }
  const auto x = layer_case.my_x().view();
  const auto dy = layer_case.my_dy().view();
  const std::size_t order[] = {2, 0, 3, 1};
  for (std::size_t i = 0; i < 4; ++i) split[i].begin_forward_train(x, steps[i].y.view(), steps[i].cache);
  for (const std::size_t i : order) split[i].finish_forward_train();
  for (std::size_t i = 0; i < 4; ++i) {
    split[i].begin_backward(steps[i].cache, dy, steps[i].dx.view(), steps[i].gradients);
  }
  for (const std::size_t i : order) split[i].finish_backward();
  for (std::size_t i = 0; i < 4; ++i) {
    const auto want = run_step(blocking[i], layer_case);
    EXPECT_TRUE(same_bits(step_bytes(split[i], steps[i]), step_bytes(blocking[i], want))) << "group " << i;
  }
}

// Open MPI gives what was sent to a communicator that its receiver has freed to the next one of the same number, and
// crashes if that has no such rank.
TEST(Groups, ANoteThatComesTooLateHarmsNoLaterGroup) {
  const bool is_late = 2 * world_rank() >= world_size();
  try {
    const Communicator all(MPI_COMM_WORLD);
    if (is_late) {  // the others have destroyed theirs when these leave
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      throw std::runtime_error("left");
    }
  } catch (const std::runtime_error&) {
  }
  MPI_Barrier(MPI_COMM_WORLD);
  std::vector<MPI_Comm> alone(8);  // one of them has the number
  for (MPI_Comm& comm : alone) MPI_Comm_dup(MPI_COMM_SELF, &comm);
  for (MPI_Comm& comm : alone) MPI_Comm_free(&comm);
  expect_group(Communicator(MPI_COMM_WORLD), world_rank(), world_size(), set_of(0, world_size()));
}

// Groups do not wait for each other, and joining is theirs, too.
TEST(Groups, GroupsOfTwoTrainAndJoinByThemselves) {
  Communicator pair = Communicator::groups_of(2, MPI_COMM_WORLD);
  auto layer_case =
      make_case<float>({.seed = 93, .channels = 3}, inputs::split(inputs::Split::even, 2 * world_size(), world_size()));
  BatchNorm layer = make_layer(layer_case, pair);
  const int steps = 1 + world_rank() / 2 * 2 + pair.rank();
  for (int s = 0; s < steps; ++s) run_step(layer, layer_case);
  EXPECT_EQ(pair.join(), pair.size() - 1);
  EXPECT_EQ(layer.num_batches_tracked(), world_rank() / 2 * 2 + pair.size());
}

void never_called(MPI_Comm*, int*, ...) { ADD_FAILURE() << "the caller's error handler was called"; }

TEST(Groups, TheCallersCommunicatorIsNotTouched) {
  MPI_Comm comm = MPI_COMM_NULL;
  MPI_Comm_dup(MPI_COMM_WORLD, &comm);
  MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
  MPI_Comm_create_errhandler(never_called, &handler);
  MPI_Comm_set_errhandler(comm, handler);
  // A receive that would take any message of any rank.
  int received = 0;
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Irecv(&received, 1, MPI_INT, MPI_ANY_SOURCE, MPI_ANY_TAG, comm, &request);
  {
    auto layer_case =
        make_case<float>({.seed = 94, .channels = 5}, inputs::split(inputs::Split::even, 12, world_size()));
    for (const Communicator& group :
         {Communicator(comm), Communicator::groups_of(2, comm), Communicator::per_node(comm)}) {
      BatchNorm layer = make_layer(layer_case, group);
      run_step(layer, layer_case);
      group.still_here();  // sends notes
      run_step(layer, layer_case);
    }
  }
  int done = 1;
  MPI_Test(&request, &done, MPI_STATUS_IGNORE);
  EXPECT_FALSE(done) << "took a message of the library";
  MPI_Barrier(MPI_COMM_WORLD);  // all have asked before anybody sends
  MPI_Errhandler found = MPI_ERRHANDLER_NULL;
  MPI_Comm_get_errhandler(comm, &found);
  EXPECT_EQ(found, handler);

  const int mine = 1234;
  MPI_Send(&mine, 1, MPI_INT, (world_rank() + 1) % world_size(), 17, comm);
  MPI_Wait(&request, MPI_STATUS_IGNORE);
  EXPECT_EQ(received, mine);
  MPI_Errhandler_free(&found);
  MPI_Errhandler_free(&handler);
  MPI_Comm_free(&comm);
}

}  // namespace
}  // namespace syncbn::testing
