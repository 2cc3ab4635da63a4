// SPDX-License-Identifier: MIT
// safetensors_copy FROM TO CHANNELS PREFIX...: loads layers of these names from a file and saves them to another. For the tests.
#include <cstdio>
#include <cstdlib>
#include <list>

#include "syncbn/checkpoint.hpp"

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  std::list<syncbn::BatchNorm> layers;
  std::vector<syncbn::NamedLayer> named;
  try {
    for (int i = 4; i < argc; ++i) {
      syncbn::BatchNormOptions options;
      options.num_features = std::atoi(argv[3]);
      layers.emplace_back(options);
      named.push_back({argv[i], &layers.back()});
    }
    syncbn::load_safetensors(argv[1], named);
    syncbn::save_safetensors(argv[2], named);
  } catch (const syncbn::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
