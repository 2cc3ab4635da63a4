// SPDX-License-Identifier: MIT
// The same bits: however samples lie on ranks, in whatever order, with however many threads, every result byte is that
// of one process with the whole batch.
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <optional>

#include <gtest/gtest.h>

#include "layer/layer_case.hpp"
#include "layer/same_bits_case.hpp"

namespace syncbn::testing {
namespace {

using bits::GlobalBatch;
using bits::Plan;
using bits::Samples;
using bits::Size;
using bits::StepBytes;
using bits::Trainee;

/// A number from the environment, for longer runs and to repeat one case.
std::uint64_t setting(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

Samples all_samples(const Plan& plan) {
  Samples samples(static_cast<std::size_t>(plan.samples));
  std::iota(samples.begin(), samples.end(), Index{0});
  return samples;
}

/// Different on every rank.
int threads_of(const Plan& plan) {
  return 1 + static_cast<int>((plan.seed + static_cast<std::uint64_t>(world_rank())) % 4);
}

/// What differs first between a rank's results and those of the whole batch in one process; nothing if no bit does.
std::optional<std::string> first_difference(const StepBytes& mine, const Samples& samples, const StepBytes& whole) {
  for (std::size_t i = 0; i < samples.size(); ++i) {
    if (mine.sample[i] != whole.sample[static_cast<std::size_t>(samples[i])]) {
      return "y or dx of sample " + std::to_string(samples[i]);
    }
  }
  if (mine.channel.size() != whole.channel.size()) return "the number of channel results";
  for (std::size_t i = 0; i < mine.channel.size(); ++i) {
    if (std::memcmp(&mine.channel[i], &whole.channel[i], sizeof(double)) != 0) {
      return "channel result " + std::to_string(i) + " (mean, mean_lo, var, invstd, dgamma, dbeta, ...)";
    }
  }
  return std::nullopt;
}

/// Trains as the plan says, once on these ranks and once in one process with one thread. Collective.
template <class T>
std::optional<std::string> difference_from_one_process(const Plan& plan, const Communicator& world,
                                                       Reduction reduction) {
  const Index misalignment = static_cast<Index>((plan.seed / 3 + static_cast<std::uint64_t>(world_rank())) % 4);
  Trainee<T> mine(plan, world, threads_of(plan), misalignment, reduction);
  Trainee<T> alone(plan, Communicator(), 1, 0, reduction);
  std::optional<std::string> first;  // no early return: the other ranks go on
  for (int step = 0; step < plan.steps; ++step) {
    const GlobalBatch<T> batch = bits::batch_of<T>(plan, step);
    const auto assignment =
        bits::random_assignment(plan.seed * 8 + static_cast<std::uint64_t>(step), plan.samples, world_size());
    const Samples& samples = assignment[static_cast<std::size_t>(world_rank())];
    const StepBytes split = mine.step(batch, samples);
    const StepBytes whole = alone.step(batch, all_samples(plan));
    const auto difference = first_difference(split, samples, whole);
    if (difference && !first) first = "step " + std::to_string(step) + ": " + *difference;
  }
  return first;
}

std::optional<std::string> difference_from_one_process(const Plan& plan, const Communicator& world,
                                                       Reduction reduction = Reduction::reproducible) {
  return bits::with_element_type(
      plan, [&](auto element) { return difference_from_one_process<decltype(element)>(plan, world, reduction); });
}

/// All ranks, in their order and in the opposite one.
struct Groups {
  Groups() : world(MPI_COMM_WORLD) {
    MPI_Comm comm = MPI_COMM_NULL;
    MPI_Comm_split(MPI_COMM_WORLD, 0, -world_rank(), &comm);
    reversed = Communicator(comm);
    MPI_Comm_free(&comm);
  }
  const Communicator& of(const Plan& plan) const { return plan.seed % 3 == 0 ? reversed : world; }
  Communicator world, reversed;
};

void expect_same_bits(std::uint64_t first_seed, std::uint64_t cases, Size size) {
  const Groups groups;
  for (std::uint64_t seed = first_seed; seed < first_seed + cases; ++seed) {
    const Plan plan = bits::random_plan(seed, size);
    const auto difference = difference_from_one_process(plan, groups.of(plan));
    EXPECT_FALSE(difference) << *difference << ", on rank " << world_rank() << " of " << world_size() << "; "
                             << plan.description() << "\nrepeat: SYNCBN_TEST_SEED=" << seed
                             << " SYNCBN_TEST_CASES=1 mpirun -n " << world_size() << " same_bits_test";
  }
}

TEST(BatchNormSameBits, EveryByteIsThatOfOneProcess) {
  expect_same_bits(setting("SYNCBN_TEST_SEED", 1), setting("SYNCBN_TEST_CASES", 300), Size::small);
}

TEST(BatchNormSameBits, EveryByteIsThatOfOneProcessAndOneThread) {
  expect_same_bits(setting("SYNCBN_TEST_SEED", 10001), setting("SYNCBN_TEST_CASES", 24), Size::for_threads);
}

// The comparison must be able to fail: plain sums in double do depend on the split.
TEST(BatchNormSameBits, FastReductionDiffersSomewhere) {
  if (world_size() == 1) GTEST_SKIP() << "needs 2 ranks";
  const Communicator world(MPI_COMM_WORLD);
  int differing = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const Plan plan = bits::random_plan(seed, Size::small);
    differing += difference_from_one_process(plan, world, Reduction::fast) ? 1 : 0;
  }
  int anywhere = 0;
  MPI_Allreduce(&differing, &anywhere, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  EXPECT_GE(anywhere, 10);
}

// Outputs of 16 MiB and more take another road to memory: here the whole batch is above that, its shards below.
TEST(BatchNormSameBits, LargeOutputsHaveTheBitsOfSmallOnes) {
  if (world_size() > 3) GTEST_SKIP() << "20 MiB a tensor: up to 3 ranks";
  for (const Layout layout : {Layout::channels_first, Layout::channels_last}) {
    Plan plan;
    plan.options.num_features = 24;
    plan.spatial = {83, 89};
    plan.layout = layout;
    plan.samples = 30;
    GlobalBatch<float> batch;
    batch.x = batch.dy = Tensor<float>(plan.samples, plan.options.num_features, plan.spatial, plan.layout);
    for (std::size_t i = 0; i < batch.x.values.size(); ++i) {
      batch.x.values[i] = static_cast<float>(inputs::uniform(30, i));
      batch.dy.values[i] = static_cast<float>(inputs::uniform(31, i));
    }
    const Samples everything = all_samples(plan);
    const auto mine = bits::random_assignment(32, plan.samples, world_size() + 1);
    const auto rest = mine.back();  // what the last rank has besides
    Samples samples = mine[static_cast<std::size_t>(world_rank())];
    if (world_rank() + 1 == world_size()) samples.insert(samples.end(), rest.begin(), rest.end());
    Trainee<float> split(plan, Communicator(MPI_COMM_WORLD), threads_of(plan), world_rank() % 4);
    Trainee<float> alone(plan, Communicator(), 1);
    const StepBytes whole = alone.step(batch, everything);
    const auto difference = first_difference(split.step(batch, samples), samples, whole);
    EXPECT_FALSE(difference) << *difference;
  }
}

// One process cannot hold samples of two sizes; ranks that swap their shards can.
TEST(BatchNormSameBits, SpatialExtentsMayDifferBetweenRanks) {
  std::vector<std::vector<Index>> spatial;
  for (int r = 0; r < world_size(); ++r) spatial.push_back({r + 1, 2 * r + 3});
  const std::vector<Index> counts(static_cast<std::size_t>(world_size()), 3);
  std::vector<std::vector<double>> channels;
  for (int shift = 0; shift < world_size(); ++shift) {
    auto layer_case = make_case<float>({.seed = 20, .channels = 18, .offset = 30}, counts, spatial);
    BatchNorm layer = make_layer(layer_case);
    const auto part = static_cast<std::size_t>((world_rank() + shift) % world_size());
    const auto step = run_step(layer, layer_case.x[part], layer_case.dy[part]);
    channels.push_back(step.cache.mean);
    for (const auto& more : {step.cache.var, values_of(step.gradients.dgamma), values_of(step.gradients.dbeta),
                             values_of(layer.running_mean()), values_of(layer.running_var())}) {
      channels.back().insert(channels.back().end(), more.begin(), more.end());
    }
    EXPECT_TRUE(same_bits(channels.back(), channels.front())) << "shards moved on by " << shift << " ranks";
  }
}

}  // namespace
}  // namespace syncbn::testing
