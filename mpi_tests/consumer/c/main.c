// SPDX-License-Identifier: MIT
/* The same in C99. */
#include <mpi.h>
#include <stdio.h>
#include <string.h>

#include "syncbn/syncbn.h"

enum { kSamples = 6, kChannels = 3 };

static int check(syncbn_status status) {
  if (status != SYNCBN_OK) fprintf(stderr, "%s\n", syncbn_last_error());
  return status != SYNCBN_OK;
}

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0, ranks = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);

  syncbn_layer_options options;
  syncbn_layer_options_init(&options, sizeof options);
  options.num_features = kChannels;
  options.name = "consumer";
  syncbn_communicator* world = NULL;
  syncbn_layer* layer = NULL;
  syncbn_cache* cache = NULL;
  float running_mean[kChannels] = {0};
  int code = check(syncbn_communicator_create((int32_t)MPI_Comm_c2f(MPI_COMM_WORLD), NULL, &world)) ||
             check(syncbn_layer_create(&options, world, &layer)) || check(syncbn_cache_create(&cache)) ||
             check(syncbn_layer_bind(layer, SYNCBN_RUNNING_MEAN, running_mean));

  const int from = rank * kSamples / ranks;
  const int count = (rank + 1) * kSamples / ranks - from;
  float x[kSamples * kChannels], y[kSamples * kChannels];
  for (int i = 0; i < count * kChannels; ++i) x[i] = (float)((from * kChannels + i) % 7) / 3.0f;
  const int64_t shape[] = {count, kChannels};
  const syncbn_tensor input = {x, SYNCBN_F32, 2, shape, NULL};
  const syncbn_tensor output = {y, SYNCBN_F32, 2, shape, NULL};
  if (code == 0) code = check(syncbn_layer_forward_train(layer, &input, &output, NULL, cache));
  if (code == 0 && rank == 0) {
    unsigned bits;
    memcpy(&bits, y, sizeof bits);
    printf("%08x running_mean %.9g\n", bits, (double)running_mean[1]);
  }
  syncbn_cache_destroy(cache);
  syncbn_layer_destroy(layer);
  syncbn_communicator_destroy(world);
  MPI_Finalize();
  return code;
}
