// SPDX-License-Identifier: MIT
#include "collectives.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <new>

#include "errors.hpp"
#include "syncbn/error.hpp"
#include "watched.hpp"

namespace syncbn::train {

namespace {

template <class T>
void all_reduce(MPI_Comm comm, T* values, Index count, MPI_Datatype type) {
  constexpr Index kChunk = Index{1} << 27;  // counts are int
  for (Index first = 0; first < count; first += kChunk) {
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Iallreduce(MPI_IN_PLACE, values + first, static_cast<int>(std::min(kChunk, count - first)), type, MPI_SUM,
                         comm, &request),
          "MPI_Iallreduce");
    wait(comm, request, "sum over ranks");
  }
}

/// An exception in a form that travels.
struct Failure {
  static constexpr int kNone = 0;
  static constexpr int kData = 100;  // below: ErrorCode of the library
  static constexpr int kUsage = 101;
  static constexpr int kMemory = 102;
  static constexpr int kOther = 103;

  int kind = kNone;
  std::string text;
};

Failure run_and_catch(const std::function<void()>& work) {
  try {
    work();
    return {};
  } catch (const DataError& error) {
    return {Failure::kData, error.what()};
  } catch (const UsageError& error) {
    return {Failure::kUsage, error.what()};
  } catch (const TimeoutError&) {
    throw;  // a rank is missing: there is nobody to agree with
  } catch (const Error& error) {
    return {static_cast<int>(error.code()), error.what()};
  } catch (const std::bad_alloc&) {
    return {Failure::kMemory, "not enough memory"};
  } catch (const std::exception& error) {
    return {Failure::kOther, error.what()};
  }
}

[[noreturn]] void rethrow(const Failure& failure) {
  switch (failure.kind) {
    case Failure::kData:
      throw DataError(failure.text);
    case Failure::kUsage:
      throw UsageError(failure.text);
    case Failure::kMemory:
    case Failure::kOther:
      throw std::runtime_error(failure.text);
    default:
      throw_error(static_cast<ErrorCode>(failure.kind), failure.text);
  }
}

void agree(MPI_Comm comm, Failure failure) {
  const int rank = rank_of(comm);
  int first = failure.kind == Failure::kNone ? std::numeric_limits<int>::max() : rank;
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Iallreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, comm, &request), "MPI_Iallreduce");
  wait(comm, request, "agreement of ranks");
  if (first == std::numeric_limits<int>::max()) return;

  constexpr std::size_t kTextBytes = 2000;
  struct {
    int kind;
    std::array<char, kTextBytes> text;
  } message{};
  if (rank == first) {
    message.kind = failure.kind;
    std::copy_n(failure.text.begin(), std::min(failure.text.size(), kTextBytes - 1), message.text.begin());
  }
  check(MPI_Ibcast(&message, sizeof(message), MPI_BYTE, first, comm, &request), "MPI_Ibcast");
  wait(comm, request, "agreement of ranks");
  rethrow({message.kind, message.text.data()});
}

}  // namespace

int rank_of(MPI_Comm comm) {
  int rank = 0;
  check(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  return rank;
}

int size_of(MPI_Comm comm) {
  int size = 0;
  check(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  return size;
}

void all_reduce_sum(MPI_Comm comm, double* values, Index count) { all_reduce(comm, values, count, MPI_DOUBLE); }

void all_reduce_sum(MPI_Comm comm, std::int64_t* values, Index count) { all_reduce(comm, values, count, MPI_INT64_T); }

void broadcast_bytes(MPI_Comm comm, void* data, Index bytes) {
  constexpr Index kChunk = Index{1} << 30;
  for (Index first = 0; first < bytes; first += kChunk) {
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Ibcast(static_cast<char*>(data) + first, static_cast<int>(std::min(kChunk, bytes - first)), MPI_BYTE, 0,
                     comm, &request),
          "MPI_Ibcast");
    wait(comm, request, "broadcast");
  }
}

void gather_bytes(MPI_Comm comm, const void* mine, Index bytes, void* all) {
  if (bytes > std::numeric_limits<int>::max()) {
    throw UsageError("a rank has " + std::to_string(bytes) + " bytes to gather, wanted less than 2 GiB");
  }
  MPI_Datatype part = MPI_DATATYPE_NULL;  // one of it: what all ranks have together may be more than an int can count
  check(MPI_Type_contiguous(static_cast<int>(bytes), MPI_BYTE, &part), "MPI_Type_contiguous");
  check(MPI_Type_commit(&part), "MPI_Type_commit");
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Igather(mine, 1, part, all, 1, part, 0, comm, &request), "MPI_Igather");
  check(MPI_Type_free(&part), "MPI_Type_free");  // the message keeps it
  wait(comm, request, "gathering on rank 0");
}

void all_or_nothing(MPI_Comm comm, const std::function<void()>& work) { agree(comm, run_and_catch(work)); }

void on_first_rank(MPI_Comm comm, const std::function<void()>& work) {
  all_or_nothing(comm, [&] {
    if (rank_of(comm) == 0) work();
  });
}

}  // namespace syncbn::train
