// SPDX-License-Identifier: MIT
// ReproducibleSum over ranks: the bytes of one process, and the same errors everywhere.
#include <algorithm>
#include <cmath>
#include <string>

#include <gtest/gtest.h>
#include <mpi.h>

#include "syncbn/communicator.hpp"
#include "syncbn/error.hpp"
#include "terms.hpp"

namespace syncbn::testing {
namespace {

int world_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}
int world_size() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

using AllReduce = void (ReproducibleSum::*)(const Communicator&);
constexpr AllReduce kBothWays[] = {&ReproducibleSum::all_reduce, &ReproducibleSum::all_gather_merge};

/// Which rank gets row r: uneven, in no order, the last rank of several gets nothing.
int owner_of(std::size_t row, std::uint64_t seed) {
  const int ranks = std::max(1, world_size() - 1);
  return static_cast<int>((row * row + 3 * row + seed) % 11 % static_cast<std::uint64_t>(ranks));
}

/// Row r as its owner adds it.
template <class T>
void add_row(ReproducibleSum& sum, const std::vector<T>& row, int owner) {
  sum.set_source(owner);
  sum.add_array(row.data());
}

template <class T>
void check_ranks_give_the_bytes_of_one_process(bool special) {
  const Communicator communicator(MPI_COMM_WORLD);
  for (const Precision precision : kBothPrecisions) {
    for (const Index size : {1, 2, 3, 17, 1000}) {
      const std::uint64_t seed = static_cast<std::uint64_t>(size) + 5;
      const auto rows = random_rows<T>(40, size, special, seed);
      ReproducibleSum whole(size, precision);
      ReproducibleSum mine(size, precision);
      for (std::size_t r = 0; r < rows.size(); ++r) {
        add_row(whole, rows[r], owner_of(r, seed));
        if (owner_of(r, seed) == world_rank()) add_row(mine, rows[r], world_rank());
      }
      for (const AllReduce way : kBothWays) {
        ReproducibleSum sum = mine;
        (sum.*way)(communicator);
        ASSERT_TRUE(same_bytes(sum, whole)) << "size " << size << " bins " << bins_of(precision);
        ASSERT_EQ(sum.non_finite().source, whole.non_finite().source);
        ASSERT_EQ(sum.non_finite().sum, whole.non_finite().sum);
      }
    }
  }
}

TEST(ReproducibleSumRanks, GiveTheBytesOfOneProcessForFloats) {
  check_ranks_give_the_bytes_of_one_process<float>(false);
}
TEST(ReproducibleSumRanks, GiveTheBytesOfOneProcessForDoubles) {
  check_ranks_give_the_bytes_of_one_process<double>(false);
}
TEST(ReproducibleSumRanks, GiveTheBytesOfOneProcessForNonFiniteTerms) {
  check_ranks_give_the_bytes_of_one_process<double>(true);
}

TEST(ReproducibleSumRanks, ASecondRoundAddsToTheFirst) {
  const Communicator communicator(MPI_COMM_WORLD);
  ReproducibleSum sum(2);
  sum.add(1, 1.0 + world_rank());
  sum.all_reduce(communicator);
  const double ranks = world_size();
  EXPECT_EQ(sum.value(1), ranks * (ranks + 1) / 2);
  EXPECT_EQ(sum.value(0), 0.0);
  sum.all_gather_merge(communicator);  // now every rank brings the whole
  EXPECT_EQ(sum.value(1), ranks * ranks * (ranks + 1) / 2);
}

/// The text that `call` throws as an Error, which must be the same on all ranks; empty if it throws nothing.
template <class ErrorType, class Call>
std::string common_error(const Call& call) {
  std::string text;
  try {
    call();
  } catch (const ErrorType& error) {
    text = error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another class of error: " << error.what();
  }
  constexpr std::size_t kLength = 256;
  char mine[kLength] = "";
  text.copy(mine, kLength - 1);
  std::vector<char> all(kLength * static_cast<std::size_t>(world_size()));
  MPI_Allgather(mine, kLength, MPI_CHAR, all.data(), kLength, MPI_CHAR, MPI_COMM_WORLD);
  for (int rank = 0; rank < world_size(); ++rank) {
    EXPECT_STREQ(all.data() + kLength * static_cast<std::size_t>(rank), mine) << "rank " << rank;
  }
  return text;
}

/// Ranks from `first` on bring other_size and other_precision.
void check_mismatch(int first, Index other_size, Precision other_precision) {
  const Communicator communicator(MPI_COMM_WORLD);
  const bool differs = world_rank() >= first;
  for (const AllReduce way : kBothWays) {
    ReproducibleSum sum(differs ? other_size : 17, differs ? other_precision : Precision::bits72);
    sum.add(0, 3.0);
    const ReproducibleSum before = sum;
    const std::string text = common_error<MismatchError>([&] { (sum.*way)(communicator); });
    ASSERT_NE(text.find("rank " + std::to_string(first)), std::string::npos) << text;
    ASSERT_NE(text.find("17 sums of 3 bins"), std::string::npos) << text;
    ASSERT_NE(text.find(std::to_string(other_size) + " sums of " + std::to_string(bins_of(other_precision)) + " bins"),
              std::string::npos)
        << text;
    EXPECT_TRUE(same_bytes(sum, before)) << "nothing is half-updated";
    ReproducibleSum next(5);
    next.add(4, 1.0);
    (next.*way)(communicator);
    EXPECT_EQ(next.value(4), static_cast<double>(world_size())) << "the ranks are still in step";
  }
}

TEST(ReproducibleSumRanks, AMismatchIsTheSameErrorEverywhere) {
  if (world_size() == 1) GTEST_SKIP() << "one rank cannot differ";
  for (int first = 1; first < world_size(); ++first) {
    check_mismatch(first, 16, Precision::bits72);
    check_mismatch(first, 100000, Precision::bits72);
    check_mismatch(first, 17, Precision::bits146);
    check_mismatch(first, 10, Precision::bits146);
  }
}

/// Each rank holds fewer terms than are allowed, all together hold more.
TEST(ReproducibleSumRanks, TooManyTermsAreTheSameErrorEverywhere) {
  if (world_size() == 1) GTEST_SKIP() << "one rank alone never gets there";
  const Communicator communicator(MPI_COMM_WORLD);
  for (const AllReduce way : kBothWays) {
    ReproducibleSum sum(3);
    sum.add(1, -0x1p36);
    for (std::int64_t terms = 1; terms < statistics::kMaxDeposits; terms *= 2) sum.merge(ReproducibleSum(sum));
    const ReproducibleSum before = sum;
    const std::string text = common_error<StateError>([&] { (sum.*way)(communicator); });
    EXPECT_NE(text.find("terms"), std::string::npos) << text;
    EXPECT_TRUE(same_bytes(sum, before)) << "nothing is half-updated";
  }
  // As many as are allowed, over all ranks: rank 0 holds all but one for each of the others.
  ReproducibleSum sum(1);
  sum.add(0, 1.0);
  if (world_rank() == 0) {
    for (std::int64_t terms = 1; terms < statistics::kMaxDeposits / 2; terms *= 2) sum.merge(ReproducibleSum(sum));
  }
  sum.all_reduce(communicator);
  EXPECT_EQ(sum.value(), static_cast<double>(statistics::kMaxDeposits / 2 + world_size() - 1));
}

TEST(ReproducibleSumRanks, NonFiniteTermsNameTheLowestRankAndSum) {
  const Communicator communicator(MPI_COMM_WORLD);
  const int last = world_size() - 1;
  for (const AllReduce way : kBothWays) {
    ReproducibleSum sum(4);
    sum.set_source(world_rank());
    if (world_rank() == last) sum.add(0, std::nan(""));
    if (world_rank() == last / 2) {
      sum.add(3, std::numeric_limits<double>::infinity());
      sum.add(2, -std::numeric_limits<double>::infinity());
    }
    sum.add(1, 1.0);
    (sum.*way)(communicator);
    EXPECT_EQ(sum.non_finite().terms, 3);
    EXPECT_EQ(sum.non_finite().source, last / 2);
    EXPECT_EQ(sum.non_finite().sum, last == last / 2 ? 0 : 2);
    EXPECT_EQ(sum.value(3), std::numeric_limits<double>::infinity());
    EXPECT_EQ(sum.value(2), -std::numeric_limits<double>::infinity());
    EXPECT_TRUE(std::isnan(sum.value(0)));
    EXPECT_EQ(sum.value(1), static_cast<double>(world_size()));
  }
}

}  // namespace
}  // namespace syncbn::testing
