// SPDX-License-Identifier: MIT
#include "load_data.hpp"

#include "collectives.hpp"
#include "data_folder.hpp"
#include "generator.hpp"

namespace syncbn::train {

namespace {

void broadcast_images(MPI_Comm comm, LabelledImages& images) {
  broadcast(comm, images.count);
  broadcast(comm, images.shape);
  broadcast(comm, images.pixels);
  broadcast(comm, images.labels);
}

}  // namespace

DataSet load_data(const std::string& folder, MPI_Comm comm) {
  if (folder.empty()) return generate_strokes({});
  DataSet data;
  on_first_rank(comm, [&] { data = load_data_folder(folder); });
  data.name = folder;
  broadcast_images(comm, data.train);
  broadcast_images(comm, data.test);
  return data;
}

}  // namespace syncbn::train
