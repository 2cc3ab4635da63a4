// SPDX-License-Identifier: MIT
// A C++ program that links the installed library: rank 0 prints the bits of y of a batch of six samples, however they are split.
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include <mpi.h>

#include "syncbn/syncbn.hpp"

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  int ranks = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  int code = 0;
  try {
    constexpr int kSamples = 6;
    constexpr int kChannels = 3;
    syncbn::BatchNormOptions options;
    options.num_features = kChannels;
    options.name = "consumer";
    options.drift_probe = std::make_shared<syncbn::DriftLog>("/dev/null");
    syncbn::BatchNorm layer(options, syncbn::Communicator(MPI_COMM_WORLD));

    const int from = rank * kSamples / ranks;
    const int count = (rank + 1) * kSamples / ranks - from;
    std::vector<float> x(static_cast<std::size_t>(count * kChannels));
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] = static_cast<float>((from * kChannels + static_cast<int>(i)) % 7) / 3.0f;
    std::vector<float> y(x.size());
    layer.forward_train(syncbn::channels_first(static_cast<const float*>(x.data()), {count, kChannels}),
                        syncbn::channels_first(y.data(), {count, kChannels}));
    if (rank == 0) {
      unsigned bits = 0;
      std::memcpy(&bits, y.data(), sizeof bits);
      std::printf("%08x running_mean %.9g\n", bits, layer.running_mean()[1]);
    }
    try {  // an exception of the library's own class crosses its boundary
      layer.forward_train(syncbn::channels_first(static_cast<const float*>(x.data()), {count, 1, kChannels}),
                          syncbn::channels_first(y.data(), {count, kChannels}));
      code = 1;
    } catch (const syncbn::ShapeError&) {
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    code = 1;
  }
  MPI_Finalize();
  return code;
}
