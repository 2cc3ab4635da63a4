// SPDX-License-Identifier: MIT
// A trainer in C++ with LibTorch under mpirun: the batch of 24 is shared by all ranks, gradients are averaged by MPI. `local`: batch
// norm as LibTorch has it.
#include <cstdio>
#include <cstring>

#include <mpi.h>

#include "syncbn/libtorch.hpp"

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  {
    int rank = 0, ranks = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    torch::set_num_threads(1);
    torch::manual_seed(1);

    torch::nn::Sequential net(torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 8, 3)));
    if (argc > 1 && std::strcmp(argv[1], "local") == 0) {
      net->push_back(torch::nn::BatchNorm2d(8));
    } else {
      net->push_back(
          syncbn::libtorch::SyncBatchNorm(8, syncbn::libtorch::Group(int32_t(MPI_Comm_c2f(MPI_COMM_WORLD)))));
    }
    net->push_back(torch::nn::ReLU());
    net->push_back(torch::nn::Flatten());
    net->push_back(torch::nn::Linear(8 * 36, 4));
    torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(0.1).momentum(0.9));

    for (int step = 0; step < 30; ++step) {
      const torch::Tensor labels = torch::randint(4, {24});
      const torch::Tensor images = torch::randn({24, 1, 8, 8}) + labels.to(torch::kFloat).view({24, 1, 1, 1});
      const auto mine = torch::indexing::Slice(24 * rank / ranks, 24 * (rank + 1) / ranks);
      optimizer.zero_grad();
      torch::Tensor loss = torch::nn::functional::cross_entropy(
                               net->forward(images.index({mine})), labels.index({mine}),
                               torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kSum)) /
                           24;
      loss.backward();
      for (torch::Tensor& parameter : net->parameters()) {  // parts of the batch's mean loss: add them up
        MPI_Allreduce(MPI_IN_PLACE, parameter.grad().data_ptr<float>(), int(parameter.numel()), MPI_FLOAT, MPI_SUM,
                      MPI_COMM_WORLD);
      }
      optimizer.step();
      float total = loss.item<float>();
      MPI_Allreduce(MPI_IN_PLACE, &total, 1, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
      if (rank == 0 && (step + 1) % 10 == 0) std::printf("step %d: loss %.4f\n", step + 1, total);
    }
  }
  MPI_Finalize();
}
