// SPDX-License-Identifier: MIT
#include <cstdio>
#include <vector>

#include <syncbn/syncbn.hpp>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  {
    syncbn::Communicator world(MPI_COMM_WORLD);
    syncbn::BatchNormOptions options;
    options.num_features = 3;
    syncbn::BatchNorm bn(options, world);

    // This rank's part of the batch: 2 samples of 3 channels and 4 positions on rank 0, 1 sample on the others.
    const syncbn::Index n = world.rank() == 0 ? 2 : 1;
    std::vector<float> x(n * 3 * 4), y(x.size()), dy(x.size(), 1.0f), dx(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = float(i % 7) + 10.0f * float(world.rank());
    dy[0] = 2.0f;  // stands for the gradient of a loss

    auto cache =
        bn.forward_train(syncbn::channels_first(x.data(), {n, 3, 4}), syncbn::channels_first(y.data(), {n, 3, 4}));
    auto gradients =
        bn.backward(cache, syncbn::channels_first(dy.data(), {n, 3, 4}), syncbn::channels_first(dx.data(), {n, 3, 4}));

    if (world.rank() == 0) {
      std::printf("%lld values per channel on %d ranks: mean %.4f, var %.4f\n", (long long)cache.count, world.size(),
                  cache.mean[0], cache.var[0]);
      std::printf("y[0] = %.4f  dx[0] = %.4f  dgamma[0] = %.4f  dbeta[0] = %.4f\n", y[0], dx[0], gradients.dgamma[0],
                  gradients.dbeta[0]);
    }
  }
  MPI_Finalize();
}
