// SPDX-License-Identifier: MIT
#include "rank_places.hpp"

#include <algorithm>

#include <sched.h>
#include <unistd.h>

#include "collectives.hpp"
#include "watched.hpp"

namespace syncbn::train {

namespace {

/// What a rank knows of itself; sent as bytes.
struct OwnPlace {
  char host[64];
  cpu_set_t cores;  ///< None if there are more than this type can hold.
};

OwnPlace own_place() {
  OwnPlace place{};
  gethostname(place.host, sizeof place.host - 1);
  CPU_ZERO(&place.cores);
  if (sched_getaffinity(0, sizeof place.cores, &place.cores) != 0) CPU_ZERO(&place.cores);
  return place;
}

std::vector<OwnPlace> gather(MPI_Comm comm) {
  const OwnPlace mine = own_place();
  std::vector<OwnPlace> all(rank_of(comm) == 0 ? static_cast<std::size_t>(size_of(comm)) : 0);
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Igather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, 0, comm, &request), "MPI_Igather");
  wait(comm, request, "gather of host names");
  return all;
}

}  // namespace

RankPlaces gather_rank_places(MPI_Comm comm) {
  const std::vector<OwnPlace> all = gather(comm);
  RankPlaces places;
  std::vector<cpu_set_t> together;  // by host
  for (const OwnPlace& place : all) {
    const std::string name = place.host;
    places.cores.push_back(CPU_COUNT(&place.cores));
    places.host_of.push_back(name);
    const auto found = std::find_if(places.hosts.begin(), places.hosts.end(),
                                    [&](const HostPlaces& host) { return host.name == name; });
    const auto at = static_cast<std::size_t>(found - places.hosts.begin());
    if (found == places.hosts.end()) {
      places.hosts.push_back({name, 0, 0});
      together.push_back(place.cores);
    }
    CPU_OR(&together[at], &together[at], &place.cores);
    ++places.hosts[at].ranks;
    places.hosts[at].cores = CPU_COUNT(&together[at]);
  }
  return places;
}

}  // namespace syncbn::train
