// SPDX-License-Identifier: MIT
// A data-parallel trainer by hand: x -> batch norm -> linear -> softmax, 64 samples a step shared by all ranks, SGD. Any number of
// ranks prints the same loss, but for the last digits of the linear layer's sums; local batch norm (run with `local`) does not.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include <mpi.h>

#include "syncbn/syncbn.hpp"

namespace {

constexpr int kBatch = 64, kFeatures = 6, kClasses = 3, kSteps = 200;
constexpr float kRate = 0.5f;

/// Sample i of step s, made alike on every rank: classes have other means, features other scales.
int make_sample(int step, int i, float* x) {
  std::minstd_rand random(static_cast<unsigned>(step * kBatch + i + 1));
  for (int warm_up = 0; warm_up < 5; ++warm_up) random();
  const int label = static_cast<int>(random() % kClasses);
  std::normal_distribution<float> noise(0.0f, 1.0f);
  for (int c = 0; c < kFeatures; ++c)
    x[c] = (noise(random) + (c % kClasses == label ? 1.5f : 0.0f)) * std::pow(10.0f, float(c)) + 100.0f;
  return label;
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  {
    int rank = 0, ranks = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    const bool is_local = argc > 1 && std::strcmp(argv[1], "local") == 0;
    const int from = rank * kBatch / ranks, count = (rank + 1) * kBatch / ranks - from;
    const auto n = static_cast<std::size_t>(count);

    // Local batch norm is the same layer with the other communicator.
    syncbn::BatchNormOptions options;
    options.num_features = kFeatures;
    syncbn::BatchNorm bn(options, is_local ? syncbn::Communicator() : syncbn::Communicator(MPI_COMM_WORLD));

    std::vector<float> x(n * kFeatures), y(x.size()), dy(x.size()), weights(kClasses * kFeatures),
        gradient(weights.size() + 1);
    syncbn::BatchNormCache cache;
    syncbn::BatchNormGradients bn_gradients;
    for (int step = 0; step < kSteps; ++step) {
      std::vector<int> labels(n);
      for (std::size_t i = 0; i < n; ++i) labels[i] = make_sample(step, from + static_cast<int>(i), &x[i * kFeatures]);
      bn.forward_train(syncbn::channels_first(x.data(), {count, kFeatures}),
                       syncbn::channels_first(y.data(), {count, kFeatures}), cache);

      std::fill(gradient.begin(), gradient.end(), 0.0f);  // of the weights, and the loss behind them
      std::fill(dy.begin(), dy.end(), 0.0f);
      for (std::size_t i = 0; i < n; ++i) {
        float p[kClasses], sum = 0.0f;
        for (int k = 0; k < kClasses; ++k) {
          p[k] = 0.0f;
          for (int c = 0; c < kFeatures; ++c) p[k] += weights[k * kFeatures + c] * y[i * kFeatures + c];
          sum += p[k] = std::exp(p[k]);
        }
        gradient.back() -= std::log(p[labels[i]] / sum) / kBatch;
        for (int k = 0; k < kClasses; ++k) {
          const float d = (p[k] / sum - (k == labels[i] ? 1.0f : 0.0f)) / kBatch;
          for (int c = 0; c < kFeatures; ++c) {
            gradient[k * kFeatures + c] += d * y[i * kFeatures + c];
            dy[i * kFeatures + c] += d * weights[k * kFeatures + c];
          }
        }
      }
      // dgamma and dbeta are sums over the whole batch already; what is the trainer's own it reduces itself.
      bn.backward(cache, syncbn::channels_first(dy.data(), {count, kFeatures}), syncbn::TensorView(), bn_gradients);
      MPI_Allreduce(MPI_IN_PLACE, gradient.data(), int(gradient.size()), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      for (std::size_t i = 0; i < weights.size(); ++i) weights[i] -= kRate * gradient[i];
      for (int c = 0; c < kFeatures; ++c) {
        bn.gamma().set(c, bn.gamma()[c] - kRate * bn_gradients.dgamma[c]);
        bn.beta().set(c, bn.beta()[c] - kRate * bn_gradients.dbeta[c]);
      }
      if (rank == 0 && (step + 1) % 50 == 0) std::printf("step %d: loss %.4f\n", step + 1, gradient.back());
    }
  }
  MPI_Finalize();
}
