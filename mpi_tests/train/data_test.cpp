// SPDX-License-Identifier: MIT
// The built-in images, and loading on all ranks.
#include <algorithm>
#include <filesystem>

#include <gtest/gtest.h>

#include "syncbn/error.hpp"
#include "train/collectives.hpp"
#include "train/errors.hpp"
#include "train/generator.hpp"
#include "train/load_data.hpp"

namespace syncbn::train {
namespace {

// Of the default images, FNV-1a; the same from gcc and clang at any optimization.
constexpr std::uint64_t kTrainHash = 0xd10eb8b11ed4902fu;
constexpr std::uint64_t kTestHash = 0x76302c5b4e5d7a5au;

std::uint64_t hash(const std::vector<std::uint8_t>& bytes) {
  std::uint64_t value = 0xcbf29ce484222325u;
  for (const std::uint8_t byte : bytes) value = (value ^ byte) * 0x100000001b3u;
  return value;
}

TEST(Generator, GivesTheSameBytesOnAllRanks) {
  const DataSet data = load_data("", MPI_COMM_WORLD);
  DataSet first = data;
  broadcast(MPI_COMM_WORLD, first.train.pixels);
  broadcast(MPI_COMM_WORLD, first.test.pixels);
  broadcast(MPI_COMM_WORLD, first.train.labels);
  EXPECT_EQ(data.train.pixels, first.train.pixels);
  EXPECT_EQ(data.test.pixels, first.test.pixels);
  EXPECT_EQ(data.train.labels, first.train.labels);
}

TEST(Generator, GivesTheSameBytesOnAllMachines) {
  const DataSet data = generate_strokes({});
  EXPECT_EQ(data.train.count, 3000);
  EXPECT_EQ(data.test.count, 1000);
  EXPECT_EQ(hash(data.train.pixels), kTrainHash);
  EXPECT_EQ(hash(data.test.pixels), kTestHash);
}

TEST(Generator, SampleDependsOnSeedAndNumberAlone) {
  const DataSet many = generate_strokes({.train_count = 50, .test_count = 20, .seed = 9});
  const DataSet few = generate_strokes({.train_count = 10, .test_count = 5, .seed = 9});
  EXPECT_TRUE(std::equal(few.train.pixels.begin(), few.train.pixels.end(), many.train.pixels.begin()));
  EXPECT_TRUE(std::equal(few.test.pixels.begin(), few.test.pixels.end(), many.test.pixels.begin()));
  EXPECT_NE(few.train.pixels, generate_strokes({.train_count = 10, .test_count = 5, .seed = 10}).train.pixels);
}

TEST(Generator, MakesTenClassesOfImagesThatDiffer) {
  const DataSet data = generate_strokes({});
  std::vector<Index> counts(kClassCount);
  for (const std::uint8_t label : data.train.labels) ++counts.at(label);
  for (const Index count : counts) EXPECT_EQ(count, 300);
  const Index size = data.train.shape.size();
  const std::uint8_t* pixels = data.train.pixels.data();
  EXPECT_FALSE(std::equal(pixels, pixels + size, pixels + 10 * size)) << "two samples of one class";
}

TEST(LoadData, FailsOnAllRanksIfOneCannotRead) {
  EXPECT_THROW(load_data("/nonexistent-data-folder", MPI_COMM_WORLD), DataError);
}

TEST(AllOrNothing, ThrowsTheErrorOfTheFirstFailingRankEverywhere) {
  const int last = size_of(MPI_COMM_WORLD) - 1;
  const auto fail_on_last = [&] {
    if (rank_of(MPI_COMM_WORLD) == last) throw UsageError("only here");
  };
  try {
    all_or_nothing(MPI_COMM_WORLD, fail_on_last);
    FAIL() << "no error";
  } catch (const UsageError& error) {
    EXPECT_STREQ(error.what(), "only here");
  }
  EXPECT_NO_THROW(all_or_nothing(MPI_COMM_WORLD, [] {}));
  EXPECT_THROW(on_first_rank(MPI_COMM_WORLD, [] { throw ShapeError("shape"); }), ShapeError);
}

}  // namespace
}  // namespace syncbn::train
