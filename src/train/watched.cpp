// SPDX-License-Identifier: MIT
#include "watched.hpp"

#include <array>
#include <limits>
#include <memory>
#include <string>

#include <sched.h>

#include "syncbn/error.hpp"

namespace syncbn::train {

void check(int code, const char* function) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw MpiError(std::string("[trainer] ") + function + " failed: " + text.data());
}

namespace {

int delete_watch(MPI_Comm, int, void* watch, void*) {
  delete static_cast<Communicator*>(watch);
  return MPI_SUCCESS;
}

int watch_key() {
  static const int key = [] {
    int made = MPI_KEYVAL_INVALID;
    check(MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, delete_watch, &made, nullptr), "MPI_Comm_create_keyval");
    return made;
  }();
  return key;
}

Communicator* watch_of(MPI_Comm comm) {
  void* watch = nullptr;
  int found = 0;
  check(MPI_Comm_get_attr(comm, watch_key(), &watch, &found), "MPI_Comm_get_attr");
  return found ? static_cast<Communicator*>(watch) : nullptr;
}

}  // namespace

void watch_over(MPI_Comm comm, const Communicator& watch) {
  auto kept = std::make_unique<Communicator>(watch);
  check(MPI_Comm_set_attr(comm, watch_key(), kept.get()), "MPI_Comm_set_attr");
  kept.release();  // owned by the attribute
}

void watch_no_more(MPI_Comm comm) {
  if (watch_of(comm) != nullptr) check(MPI_Comm_delete_attr(comm, watch_key()), "MPI_Comm_delete_attr");
}

Communicator communicator_over(MPI_Comm comm) {
  const Communicator* watch = watch_of(comm);
  return watch != nullptr ? *watch : Communicator(comm);
}

double deadline_seconds_of(MPI_Comm comm) {
  const Communicator* watch = watch_of(comm);
  return watch != nullptr ? watch->deadline_seconds() : std::numeric_limits<double>::infinity();
}

void wait(MPI_Comm comm, MPI_Request& request, const char* what) {
  if (const Communicator* watch = watch_of(comm)) return watch->wait(request, std::string("[") + what + "]");
  for (int done = 0; done == 0; sched_yield()) check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), what);
}

void still_here(MPI_Comm comm) {
  if (Communicator* watch = watch_of(comm)) watch->still_here();
}

}  // namespace syncbn::train
