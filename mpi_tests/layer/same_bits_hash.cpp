// SPDX-License-Identifier: MIT
// same_bits_hash [--threads T] [--reduction fast] [--cases N]: trains fixed random cases on the ranks it is started on
// and prints one line with a hash of all result bytes, sample by sample in the order of the global batch. The line must
// be the same however the program was built and started; same_bits_runs_test.py and scripts/test compare them.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <mpi.h>

#include "layer/same_bits_case.hpp"

namespace syncbn::testing::bits {
namespace {

struct Arguments {
  int threads = 1;
  Reduction reduction = Reduction::reproducible;
  std::uint64_t cases = 100;
};

Arguments arguments_of(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--threads") arguments.threads = std::atoi(argv[i + 1]);
    if (name == "--cases") arguments.cases = std::strtoull(argv[i + 1], nullptr, 10);
    if (name == "--reduction" && std::strcmp(argv[i + 1], "fast") == 0) arguments.reduction = Reduction::fast;
  }
  return arguments;
}

/// Adds a step's results to `hash`: of each sample by its owner's hash, of the channels by every rank's. Collective.
/// The same on all ranks if they agree in the channels; if not, `ranks_agree` becomes false.
void add_step(const StepBytes& mine, const Samples& samples, Index global_samples, Hash& hash, bool& ranks_agree) {
  std::vector<std::uint64_t> of_samples(static_cast<std::size_t>(global_samples), 0);
  for (std::size_t i = 0; i < samples.size(); ++i) {
    Hash sample;
    sample.add(mine.sample[i].data(), mine.sample[i].size());
    of_samples[static_cast<std::size_t>(samples[i])] = sample.value();
  }
  MPI_Allreduce(MPI_IN_PLACE, of_samples.data(), static_cast<int>(global_samples), MPI_UINT64_T, MPI_SUM,
                MPI_COMM_WORLD);
  hash.add(of_samples.data(), of_samples.size() * sizeof(std::uint64_t));

  Hash channels;
  channels.add(mine.channel.data(), mine.channel.size() * sizeof(double));
  std::uint64_t of_rank_0 = channels.value();
  MPI_Bcast(&of_rank_0, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
  int all_equal = of_rank_0 == channels.value() ? 1 : 0;
  MPI_Allreduce(MPI_IN_PLACE, &all_equal, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  if (all_equal == 0) ranks_agree = false;
  hash.add(&of_rank_0, sizeof of_rank_0);
}

template <class T>
void add_case(const Plan& plan, const Arguments& arguments, Hash& hash, bool& ranks_agree) {
  int rank = 0;
  int ranks = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  Trainee<T> trainee(plan, Communicator(MPI_COMM_WORLD), arguments.threads, 0, arguments.reduction);
  for (int step = 0; step < plan.steps; ++step) {
    const std::uint64_t seed = plan.seed * 8 + static_cast<std::uint64_t>(step);
    const Samples samples = random_assignment(seed, plan.samples, ranks)[static_cast<std::size_t>(rank)];
    const StepBytes mine = trainee.step(batch_of<T>(plan, step), samples);
    add_step(mine, samples, plan.samples, hash, ranks_agree);
  }
}

int run(const Arguments& arguments) {
  Hash hash;
  bool ranks_agree = true;
  for (std::uint64_t seed = 1; seed <= arguments.cases; ++seed) {
    const Plan plan = random_plan(seed, seed % 10 == 0 ? Size::for_threads : Size::small);
    with_element_type(plan, [&](auto element) { add_case<decltype(element)>(plan, arguments, hash, ranks_agree); });
  }
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank == 0 && ranks_agree)
    std::printf("[bits] %016" PRIx64 " of %" PRIu64 " cases\n", hash.value(), arguments.cases);
  if (rank == 0 && !ranks_agree) std::printf("[bits] the ranks differ from each other\n");
  return ranks_agree ? 0 : 1;
}

}  // namespace
}  // namespace syncbn::testing::bits

int main(int argc, char** argv) {
  int level = MPI_THREAD_SINGLE;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &level);
  int code = 1;
  try {
    code = syncbn::testing::bits::run(syncbn::testing::bits::arguments_of(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "same_bits_hash: %s\n", error.what());
    MPI_Abort(MPI_COMM_WORLD, 1);
  }
  MPI_Finalize();
  return code;
}
