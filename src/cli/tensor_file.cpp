// SPDX-License-Identifier: MIT
#include "tensor_file.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>

#include "agree.hpp"
#include "element_type.hpp"
#include "train/watched.hpp"

namespace syncbn::cli {
namespace {

constexpr Index kPieceBytes = Index{64} << 20;
constexpr int kRowsTag = 1;

std::string number_text(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9g", value);
  return text;
}

/// "[3, 0, 17]" for the flat index `i` of an array in C order.
std::string index_text(Index i, const std::vector<Index>& shape) {
  std::vector<Index> index(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    index[axis] = i % shape[axis];
    i /= shape[axis];
  }
  std::string text = "[";
  text += list_text(index);
  return text + "]";
}

template <class T>
void require_finite(const std::string& path, const std::vector<Index>& shape, Index first, Index count,
                    const T* values) {
  const T* bad =
      std::find_if_not(values, values + count, [](T value) { return std::isfinite(static_cast<double>(value)); });
  if (bad == values + count) return;
  throw LocalFailure(kBadData, "'" + path + "' has " + number_text(static_cast<double>(*bad)) + " at " +
                                   index_text(first + (bad - values), shape) + ", wanted finite numbers");
}

/// `values` is rows of the whole array from element `first` on.
void require_finite(const std::string& path, const NpyHeader& header, Index first, const Bytes& values) {
  const Index count = static_cast<Index>(values.size()) / size_of(header.type);
  with_element_type(header.type, [&](auto element) {
    require_finite(path, header.shape, first, count, reinterpret_cast<const decltype(element)*>(values.data()));
  });
}

/// Calls `move` for consecutive pieces that fit an int, each with its offset and size.
template <class Move>
void in_pieces(Index count, const Move& move) {
  for (Index offset = 0; offset < count; offset += kPieceBytes) {
    move(offset, static_cast<int>(std::min(count - offset, kPieceBytes)));
  }
}

void broadcast_bytes(MPI_Comm comm, void* bytes, Index count) {
  in_pieces(count, [&](Index offset, int piece) {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ibcast(static_cast<char*>(bytes) + offset, piece, MPI_BYTE, 0, comm, &request), "MPI_Ibcast");
    train::wait(comm, request, "broadcast of a file");
  });
}

void send_bytes(MPI_Comm comm, const void* bytes, Index count) {
  in_pieces(count, [&](Index offset, int piece) {
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Isend(static_cast<const char*>(bytes) + offset, piece, MPI_BYTE, 0, kRowsTag, comm, &request),
              "MPI_Isend");
    train::wait(comm, request, "rows on their way to rank 0");
  });
}

std::vector<double> widened(const NpyHeader& header, const Bytes& bytes) {
  std::vector<double> wide(static_cast<std::size_t>(header.element_count()));
  with_element_type(header.type, [&](auto element) {
    using T = decltype(element);
    const T* values = reinterpret_cast<const T*>(bytes.data());
    std::transform(values, values + wide.size(), wide.begin(), [](T value) { return static_cast<double>(value); });
  });
  return wide;
}

std::vector<double> read_channel_vector_here(const std::string& path, Index channels, DataType type) {
  const NpyHeader header = read_npy_header(path);
  if (header.shape != std::vector<Index>{channels}) {
    throw LocalFailure(kBadData, "'" + path + "' has shape " + shape_text(header.shape) + ", wanted " +
                                     shape_text({channels}) + ": one number per channel of the input");
  }
  Bytes bytes(static_cast<std::size_t>(channels * size_of(header.type)));
  read_npy_elements(path, header, 0, channels, bytes.data());
  require_finite(path, header, 0, bytes);
  std::vector<double> values = widened(header, bytes);
  const double largest = type == DataType::f64 ? std::numeric_limits<double>::max() : std::numeric_limits<float>::max();
  for (std::size_t c = 0; c < values.size(); ++c) {
    if (std::abs(values[c]) > largest) {
      throw LocalFailure(kBadData, "'" + path + "' has " + number_text(values[c]) + " at [" + std::to_string(c) +
                                       "], which is too large for the layer's " + name_of(type));
    }
  }
  return values;
}

/// Rank 0's part of write_rows(). After a failure it goes on receiving, so that the senders can go on to the agreement.
std::optional<Failure> receive_and_write(MPI_Comm comm, OutputFolder& folder, const OutputArray& array,
                                         Index bytes_per_row, const void* my_rows) {
  std::optional<Failure> failure = failure_of([&] {
    const std::string header = npy_header_bytes(array.type, array.shape);
    folder.start(array.name + ".npy");
    folder.write(header.data(), static_cast<Index>(header.size()));
    folder.write(my_rows, array.rows_of_ranks.front() * bytes_per_row);
  });
  Bytes piece;
  for (int source = 1; source < size_of(comm); ++source) {
    const Index bytes = array.rows_of_ranks[static_cast<std::size_t>(source)] * bytes_per_row;
    in_pieces(bytes, [&](Index, int count) {
      if (piece.size() < static_cast<std::size_t>(count)) piece.resize(static_cast<std::size_t>(count));
      MPI_Request request = MPI_REQUEST_NULL;
      check_mpi(MPI_Irecv(piece.data(), count, MPI_BYTE, source, kRowsTag, comm, &request), "MPI_Irecv");
      train::wait(comm, request, "rows on their way to rank 0");
      if (!failure) failure = failure_of([&] { folder.write(piece.data(), count); });
    });
  }
  if (!failure) failure = failure_of([&] { folder.finish(); });
  return failure;
}

}  // namespace

Index row_bytes(const NpyHeader& header) noexcept {
  Index bytes = size_of(header.type);
  for (std::size_t axis = 1; axis < header.shape.size(); ++axis) bytes *= header.shape[axis];
  return bytes;
}

NpyHeader read_shared_header(MPI_Comm comm, const std::string& path) {
  NpyHeader header;
  together(comm, [&] { header = read_npy_header(path); });

  std::vector<Index> of_rank_0{static_cast<Index>(header.type), static_cast<Index>(header.shape.size())};
  broadcast_bytes(comm, of_rank_0.data(), 2 * Index{sizeof(Index)});
  NpyHeader first{static_cast<DataType>(of_rank_0[0]), header.shape, header.data_offset};
  first.shape.resize(static_cast<std::size_t>(of_rank_0[1]));
  broadcast_bytes(comm, first.shape.data(), of_rank_0[1] * Index{sizeof(Index)});
  together(comm, [&] {
    if (header.type == first.type && header.shape == first.shape) return;
    throw LocalFailure(kBadData, "'" + path + "' is " + shape_text(header.shape) + " " + name_of(header.type) +
                                     " here, but " + shape_text(first.shape) + " " + name_of(first.type) +
                                     " on rank 0: wanted one file that all hosts see");
  });
  return header;
}

Bytes read_finite_rows(MPI_Comm comm, const std::string& path, const NpyHeader& header, RowRange rows) {
  Bytes bytes;
  together(comm, [&] {
    const Index row_elements = row_bytes(header) / size_of(header.type);
    bytes.resize(static_cast<std::size_t>(rows.count * row_bytes(header)));
    read_npy_elements(path, header, rows.first * row_elements, rows.count * row_elements, bytes.data());
    require_finite(path, header, rows.first * row_elements, bytes);
  });
  return bytes;
}

std::vector<double> read_channel_vector(MPI_Comm comm, const std::string& path, Index channels, DataType type) {
  std::vector<double> values;
  together_on(0, comm, [&] { values = read_channel_vector_here(path, channels, type); });
  together(comm, [&] { values.resize(static_cast<std::size_t>(channels)); });
  broadcast_bytes(comm, values.data(), channels * Index{sizeof(double)});
  return values;
}

void write_rows(MPI_Comm comm, OutputFolder* folder, const OutputArray& array, const void* my_rows) {
  const Index bytes_per_row = row_bytes({array.type, array.shape, 0});
  const int rank = rank_of(comm);
  std::optional<Failure> failure;
  if (rank == 0) {
    failure = receive_and_write(comm, *folder, array, bytes_per_row, my_rows);
  } else {
    send_bytes(comm, my_rows, array.rows_of_ranks[static_cast<std::size_t>(rank)] * bytes_per_row);
  }
  agree(comm, failure);
}

}  // namespace syncbn::cli
