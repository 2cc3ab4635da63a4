// SPDX-License-Identifier: MIT
#include "agree.hpp"

#include <array>
#include <new>
#include <string>

#include "train/watched.hpp"

namespace syncbn::cli {

void check_mpi(int code, const char* function) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) length = 0;
  throw MpiError(std::string(function) + " failed: " +
                 (length > 0 ? std::string(text, static_cast<std::size_t>(length)) : std::to_string(code)));
}

int rank_of(MPI_Comm comm) {
  int rank = 0;
  check_mpi(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  return rank;
}

int size_of(MPI_Comm comm) {
  int size = 0;
  check_mpi(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  return size;
}

ExitCode exit_code_of(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::option:
    case ErrorCode::state:
      return kUsage;
    case ErrorCode::shape:
    case ErrorCode::non_finite:
      return kBadData;
    case ErrorCode::mismatch:
    case ErrorCode::mpi:
    case ErrorCode::timeout:
    case ErrorCode::none:
      break;
  }
  return kEnvironment;
}

void agree(MPI_Comm comm, const std::optional<Failure>& mine) {
  const int rank = rank_of(comm);
  const int size = size_of(comm);
  const std::array<int, 2> local{mine ? rank : size, mine ? 1 : 0};
  std::array<int, 2> global{};
  MPI_Request request = MPI_REQUEST_NULL;
  const auto wait = [&](int started) {
    check_mpi(started, "a nonblocking operation");
    train::wait(comm, request, "agreement of ranks");
  };
  wait(MPI_Iallreduce(local.data(), global.data(), 2, MPI_INT, MPI_MIN, comm, &request));
  const auto [speaker, all_failed] = global;
  if (speaker == size) return;

  std::string text;
  std::array<int, 2> code_and_length{};
  if (rank == speaker) {
    text = mine->text;
    if (!all_failed) text += " (rank " + std::to_string(rank) + " of " + std::to_string(size) + ")";
    code_and_length = {mine->code, static_cast<int>(text.size())};
  }
  wait(MPI_Ibcast(code_and_length.data(), 2, MPI_INT, speaker, comm, &request));
  text.resize(static_cast<std::size_t>(code_and_length[1]));
  wait(MPI_Ibcast(text.data(), code_and_length[1], MPI_CHAR, speaker, comm, &request));
  throw AgreedFailure({static_cast<ExitCode>(code_and_length[0]), text});
}

std::optional<Failure> failure_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const LocalFailure& failure) {
    return Failure{failure.code(), failure.what()};
  } catch (const MpiError&) {
    throw;
  } catch (const Error& error) {
    return Failure{exit_code_of(error.code()), error.what()};
  } catch (const std::bad_alloc&) {
    return Failure{kEnvironment, "out of memory"};
  }
  return std::nullopt;
}

void together(MPI_Comm comm, const std::function<void()>& work) { agree(comm, failure_of(work)); }

void together_on(int rank, MPI_Comm comm, const std::function<void()>& work) {
  together(comm, [&] {
    if (rank_of(comm) == rank) work();
  });
}

}  // namespace syncbn::cli
