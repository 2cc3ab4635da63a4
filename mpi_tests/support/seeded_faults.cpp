// SPDX-License-Identifier: MIT
// seeded_faults FAULT: a program with one fault, on the last rank, which seeded_faults_test.sh wants found; so a build that
// claims to be checked and is not comes out red. FAULT `none` is the same program without one.
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <vector>

#include <mpi.h>

#include "kernels/kernels.hpp"

namespace {

using syncbn::Index;

/// Values that the compiler must take as they come.
volatile int hidden_one = 1;

int read_behind_heap() {
  const std::vector<int> values(8, 1);
  return values.data()[7 + hidden_one];
}

/// A kernel is told of one element more than there is. The table is the best of this processor.
int kernel_reads_behind_heap() {
  const std::vector<float> x(31, 1.0f);
  double sums[3];
  const syncbn::kernels::SampleShape shape{1, 31 + hidden_one, false};
  syncbn::kernels::table_for(syncbn::DataType::f32).plane_sums(x.data(), shape, {sums, sums + 1, sums + 2});
  return static_cast<int>(sums[1]);
}

int overflow_int() {
  int value = 0x7fffffff;
  value += hidden_one;
  return value;
}

int race() {
  static int shared = 0;
  std::thread other([] { shared += hidden_one; });
  shared += hidden_one;
  other.join();
  return shared;
}

/// Threads as the layer has them.
int race_of_parallel_loop() {
  static int shared = 0;
#ifdef _OPENMP
#pragma omp parallel for schedule(static, 1) num_threads(2)
#endif
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 1000; ++j) shared += hidden_one;
  }
  return shared;
}

int branch_on_unset() {
  int* const values = static_cast<int*>(std::malloc(4 * sizeof(int)));
  values[0] = hidden_one;
  const int result = values[hidden_one] > 0 ? 1 : 2;
  std::free(values);
  return result;
}

/// The only pointer is overwritten, more than once: a register may still hold the last.
int leak() {
  static int* volatile last = nullptr;
  for (int i = 0; i < 10; ++i) last = new int[100];
  const bool is_there = last != nullptr;
  last = nullptr;
  return is_there ? 1 : 0;
}

struct Fault {
  std::string_view name;
  int (*commit)();
};
constexpr Fault kFaults[] = {
    {"none", [] { return 0; }},
    {"heap_overflow", read_behind_heap},
    {"kernel_overflow", kernel_reads_behind_heap},
    {"signed_overflow", overflow_int},
    {"leak", leak},
    {"data_race", race},
    {"parallel_race", race_of_parallel_loop},
    {"uninitialised_read", branch_on_unset},
};

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  bool is_known = false;
  for (const Fault& fault : kFaults) {
    if (argc != 2 || fault.name != argv[1]) continue;
    is_known = true;
    if (rank == size - 1) std::printf("%s gives %d\n", argv[1], fault.commit());
  }
  MPI_Finalize();
  return is_known ? 0 : 2;
}
