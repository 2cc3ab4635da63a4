// SPDX-License-Identifier: MIT
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "capi/handles.hpp"
#include "capi/options.hpp"
#include "capi/status.hpp"

using syncbn::AllGather;
using syncbn::Communicator;
using syncbn::MpiError;
using syncbn::capi::guarded;
using syncbn::capi::options_of;
using syncbn::capi::SharedCommunicator;
using syncbn::capi::want;

namespace {

/// Open MPI's answer to a wrong number; where handles are numbers there is no telling.
template <class Handle>
bool names_nothing([[maybe_unused]] Handle comm) {
  if constexpr (std::is_pointer_v<Handle>) return comm == nullptr;
  return false;
}

/// MPI_Comm_f2c of a number that names nothing may crash, and before MPI_Init everything does.
MPI_Comm communicator_of(std::int32_t fortran, const char* call) {
  int is_running = 0;
  int has_ended = 0;
  MPI_Initialized(&is_running);
  MPI_Finalized(&has_ended);
  if (is_running == 0 || has_ended != 0) {
    throw MpiError(std::string("[") + call + "] MPI is not running: " +
                   (has_ended != 0 ? "MPI_Finalize has been called" : "MPI_Init has not been called"));
  }
  MPI_Comm comm = MPI_Comm_f2c(static_cast<MPI_Fint>(fortran));
  if (names_nothing(comm)) {
    throw MpiError(std::string("[") + call + "] " + std::to_string(fortran) + " is the number of no communicator");
  }
  if (comm == MPI_COMM_NULL) throw MpiError(std::string("[") + call + "] the communicator is MPI_COMM_NULL");
  return comm;
}

/// *communicator <- what `make` returns; NULL if that throws.
template <class Make>
syncbn_status create(syncbn_communicator** communicator, const char* call, const Make& make) noexcept {
  return guarded([&] {
    want(communicator, call, "communicator");
    *communicator = nullptr;
    auto shared = std::make_shared<SharedCommunicator>(make());
    *communicator = new syncbn_communicator{std::move(shared)};
  });
}

}  // namespace

extern "C" {

syncbn_status syncbn_communicator_self(syncbn_communicator** communicator) {
  return create(communicator, "syncbn_communicator_self", [] { return Communicator(); });
}

syncbn_status syncbn_communicator_create(int32_t fortran_communicator, const syncbn_communicator_options* options,
                                         syncbn_communicator** communicator) {
  constexpr const char* kCall = "syncbn_communicator_create";
  return create(communicator, kCall,
                [&] { return Communicator(communicator_of(fortran_communicator, kCall), options_of(options)); });
}

syncbn_status syncbn_communicator_groups_of(int32_t ranks, int32_t fortran_communicator,
                                            const syncbn_communicator_options* options,
                                            syncbn_communicator** communicator) {
  constexpr const char* kCall = "syncbn_communicator_groups_of";
  return create(communicator, kCall, [&] {
    return Communicator::groups_of(ranks, communicator_of(fortran_communicator, kCall), options_of(options));
  });
}

syncbn_status syncbn_communicator_per_node(int32_t fortran_communicator, const syncbn_communicator_options* options,
                                           syncbn_communicator** communicator) {
  constexpr const char* kCall = "syncbn_communicator_per_node";
  return create(communicator, kCall, [&] {
    return Communicator::per_node(communicator_of(fortran_communicator, kCall), options_of(options));
  });
}

syncbn_status syncbn_communicator_from_callback(int32_t rank, int32_t size, syncbn_all_gather all_gather, void* context,
                                                const syncbn_communicator_options* options,
                                                syncbn_communicator** communicator) {
  constexpr const char* kCall = "syncbn_communicator_from_callback";
  return create(communicator, kCall, [&] {
    if (all_gather == nullptr) throw syncbn::capi::ArgumentError(std::string("[") + kCall + "] all_gather is NULL");
    const AllGather call = [all_gather, context](const void* mine, std::size_t bytes, void* all) {
      const int32_t code = all_gather(context, mine, bytes, all);
      if (code != 0) throw std::runtime_error("it returned " + std::to_string(code));
    };
    return Communicator(rank, size, call, options_of(options));
  });
}

void syncbn_communicator_destroy(syncbn_communicator* communicator) { delete communicator; }

int32_t syncbn_communicator_rank(const syncbn_communicator* communicator) {
  return communicator == nullptr ? -1 : communicator->shared->communicator.rank();
}

int32_t syncbn_communicator_size(const syncbn_communicator* communicator) {
  return communicator == nullptr ? -1 : communicator->shared->communicator.size();
}

syncbn_status syncbn_communicator_join(syncbn_communicator* communicator, int32_t* last_rank) {
  return guarded([&] {
    want(communicator, "syncbn_communicator_join", "communicator");
    SharedCommunicator& shared = *communicator->shared;
    for (auto* layer : shared.layers) layer->read_bound();
    const auto write_all = [&] {
      for (auto* layer : shared.layers) layer->write_bound();
    };
    try {
      const int last = shared.communicator.join();
      if (last_rank != nullptr) *last_rank = last;
    } catch (...) {
      write_all();  // the steps that it has answered until then have happened
      throw;
    }
    write_all();
  });
}

syncbn_status syncbn_communicator_still_here(const syncbn_communicator* communicator) {
  return guarded([&] {
    want(communicator, "syncbn_communicator_still_here", "communicator");
    communicator->shared->communicator.still_here();
  });
}

}  // extern "C"
