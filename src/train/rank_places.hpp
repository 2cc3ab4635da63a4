// SPDX-License-Identifier: MIT
// Where the ranks of a run are: a time says nothing without it.
#pragma once

#include <string>
#include <vector>

#include <mpi.h>

#include "syncbn/tensor_view.hpp"

namespace syncbn::train {

/// Ranks that have one host name.
struct HostPlaces {
  std::string name;
  Index ranks = 0;
  Index cores = 0;  ///< Logical cores that any of them may run on; 0: not known.
};

struct RankPlaces {
  std::vector<HostPlaces> hosts;     ///< In the order of their first ranks.
  std::vector<Index> cores;          ///< By rank: how many it may run on; 0: not known.
  std::vector<std::string> host_of;  ///< By rank.
};

/// On rank 0; empty on the others. Collective: one small gather. Throws MpiError.
RankPlaces gather_rank_places(MPI_Comm comm);

}  // namespace syncbn::train
