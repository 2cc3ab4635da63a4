// SPDX-License-Identifier: MIT
// Sums over units: the same bytes on any number of ranks, for numbers that no order of additions would forgive.
#include "train/gradient_sum.hpp"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <new>

#include <gtest/gtest.h>

#include "support/collective_counter.hpp"
#include "train/collectives.hpp"
#include "train/errors.hpp"
#include "train/random.hpp"
#include "train/units.hpp"

namespace {

std::atomic<long> allocations = 0;

void* counted(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}

void* counted(std::size_t bytes, std::align_val_t alignment) {
  ++allocations;
  const auto line = static_cast<std::size_t>(alignment);
  if (void* memory = std::aligned_alloc(line, (bytes + line) / line * line)) return memory;
  throw std::bad_alloc();
}

}  // namespace

// Not inlined: where gcc inlines one of a pair, it takes the other for a mistake.
[[gnu::noinline]] void* operator new(std::size_t bytes) { return counted(bytes); }
[[gnu::noinline]] void* operator new[](std::size_t bytes) { return counted(bytes); }
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, alignment);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace syncbn::train {
namespace {

constexpr Index kUnitSize = 2500;  // not whole lines, and more than one block
constexpr Index kRankSize = 37;
constexpr Index kNoteSize = 6;

/// Number `index` of contribution `owner`: huge and opposite, small, subnormal, of any exponent.
float hostile(Index owner, Index index) {
  const CounterRandom random = CounterRandom(3, 9).substream(static_cast<std::uint64_t>(owner));
  const auto i = static_cast<std::uint64_t>(index);
  switch (index % 4) {
    case 0:
      return owner == 0 ? 1e30f : owner == 3 ? -1e30f : 1.0f;
    case 1:
      return static_cast<float>(1 + random.below(i, 1000)) * std::numeric_limits<float>::denorm_min();
    case 2:
      return std::ldexp(static_cast<float>(random.uniform(i, -1, 1)), static_cast<int>(random.below(i + 1, 60)) - 30);
    default:
      return random.below(i, 2) == 0 ? std::numeric_limits<float>::max() : -0.0f;
  }
}

double hostile_loss(Index unit) { return unit == 0 ? 1e300 : unit == 3 ? -1e300 : 1.0; }

SampleRange my_units() { return units_of_rank(rank_of(MPI_COMM_WORLD), size_of(MPI_COMM_WORLD)); }

void fill(GradientSum& sums) {
  const SampleRange mine = my_units();
  for (Index unit = mine.first; unit < mine.first + mine.count; ++unit) {
    for (Index i = 0; i < kUnitSize; ++i) sums.unit(unit)[i] = hostile(unit, i);
    sums.set_loss(unit, hostile_loss(unit));
  }
  for (Index i = 0; i < kRankSize; ++i) sums.rank()[i] = hostile(rank_of(MPI_COMM_WORLD), i);
  sums.set_flag(0, false);
}

/// value(0) + value(1) + ... in double.
double in_order(Index count, const std::function<double(Index)>& value) {
  double sum = 0;
  for (Index i = 0; i < count; ++i) sum += value(i);
  return sum;
}

bool is_same(double a, double b) { return std::memcmp(&a, &b, sizeof(a)) == 0; }

TEST(GradientSum, AddsUnitsInTheirOrderOnAnyNumberOfRanks) {
  GradientSum sums(MPI_COMM_WORLD, kUnitSize, kRankSize, kNoteSize);
  fill(sums);
  sums.all_gather();
  Index order_matters = 0;
  for (Index i = 0; i < kUnitSize; ++i) {
    const double wanted = in_order(kUnitCount, [i](Index unit) { return hostile(unit, i); });
    const double backwards = in_order(kUnitCount, [i](Index unit) { return hostile(kUnitCount - 1 - unit, i); });
    ASSERT_TRUE(is_same(sums.unit_sum(i), wanted))
        << "number " << i << " is " << sums.unit_sum(i) << ", not " << wanted;
    order_matters += is_same(wanted, backwards) ? 0 : 1;
  }
  EXPECT_GT(order_matters, kUnitSize / 4) << "these numbers are too kind";
  EXPECT_TRUE(is_same(sums.loss_sum(), in_order(kUnitCount, hostile_loss)));
  EXPECT_FALSE(
      is_same(sums.loss_sum(), in_order(kUnitCount, [](Index i) { return hostile_loss(kUnitCount - 1 - i); })));
}

TEST(GradientSum, AddsRanksInTheirOrder) {
  GradientSum sums(MPI_COMM_WORLD, kUnitSize, kRankSize, kNoteSize);
  fill(sums);
  sums.all_gather();
  for (Index i = 0; i < kRankSize; ++i) {
    const double wanted = in_order(size_of(MPI_COMM_WORLD), [i](Index rank) { return hostile(rank, i); });
    EXPECT_TRUE(is_same(sums.rank_sum(i), wanted)) << "number " << i;
  }
}

TEST(GradientSum, ShowsAFlagOfAnyRankToAll) {
  GradientSum sums(MPI_COMM_WORLD, 1, 0, 0);
  for (const int flag : {0, 1, 63}) {
    for (int flagged = 0; flagged < size_of(MPI_COMM_WORLD); ++flagged) {
      sums.set_flag(flag, rank_of(MPI_COMM_WORLD) == flagged);
      sums.all_gather();
      for (const int other : {0, 1, 63}) EXPECT_EQ(sums.is_flag_set(other), other == flag) << "rank " << flagged;
    }
    sums.set_flag(flag, false);
    sums.all_gather();
    EXPECT_FALSE(sums.is_flag_set(flag));
  }
}

TEST(GradientSum, CarriesNotesOfAllRanks) {
  GradientSum sums(MPI_COMM_WORLD, kUnitSize, kRankSize, kNoteSize);
  const auto note = [](Index rank, Index i) { return static_cast<float>(100 * rank + i); };
  for (Index i = 0; i < kNoteSize; ++i) sums.notes()[i] = note(rank_of(MPI_COMM_WORLD), i);
  fill(sums);
  sums.set_flag(0, true);
  sums.all_gather();
  for (Index rank = 0; rank < size_of(MPI_COMM_WORLD); ++rank) {
    for (Index i = 0; i < kNoteSize; ++i) EXPECT_EQ(sums.notes_of(rank)[i], note(rank, i)) << "rank " << rank;
  }
  for (Index i = 0; i < kRankSize; ++i) {
    EXPECT_TRUE(is_same(sums.rank_sum(i), in_order(size_of(MPI_COMM_WORLD), [i](Index r) { return hostile(r, i); })));
  }
}

TEST(GradientSum, WorksWithoutNumbers) {
  GradientSum sums(MPI_COMM_WORLD, 0, 0, 0);
  const SampleRange mine = my_units();
  for (Index unit = mine.first; unit < mine.first + mine.count; ++unit) sums.set_loss(unit, 0.5);
  sums.all_gather();
  EXPECT_EQ(sums.loss_sum(), 0.5 * kUnitCount);
}

TEST(GradientSum, SendsOneMessageAndAllocatesNothing) {
  using syncbn::testing::CollectiveCounter;
  GradientSum sums(MPI_COMM_WORLD, kUnitSize, kRankSize, kNoteSize);
  fill(sums);
  sums.all_gather();
  CollectiveCounter::reset();
  const long before = allocations;
  sums.all_gather();
  EXPECT_EQ(allocations - before, 0);
  EXPECT_EQ(CollectiveCounter::total_collectives(), size_of(MPI_COMM_WORLD) > 1 ? 1 : 0)
      << CollectiveCounter::summary();
}

TEST(GradientSum, RefusesMoreThanAMessageCanHaveWithoutAllocatingIt) {
  EXPECT_THROW(GradientSum(MPI_COMM_WORLD, Index{1} << 33, 0, 0), UsageError);
  EXPECT_THROW(GradientSum(MPI_COMM_WORLD, 0, Index{1} << 40, 0), UsageError);
  EXPECT_THROW(GradientSum(MPI_COMM_WORLD, std::numeric_limits<Index>::max() / 2, 0, 0), UsageError);
}

}  // namespace
}  // namespace syncbn::train
