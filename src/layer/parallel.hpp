// SPDX-License-Identifier: MIT
// How work is cut up for threads. Where the cuts fall changes no bit: element passes have no memory, and sums over
// samples do not depend on grouping.
#pragma once

#include <algorithm>

#include "kernels/kernels.hpp"

namespace syncbn::layer {

/// [begin, end) of part `part` out of `parts` near-equal ones of n things; the first parts take the rest.
struct Range {
  Index begin, end;
};
inline Range part_of(Index n, Index part, Index parts) {
  const Index size = n / parts;
  const Index rest = n % parts;
  const Index begin = part * size + std::min(part, rest);
  return {begin, begin + size + (part < rest ? 1 : 0)};
}

/// Calls body(part) for all parts, each by a thread of its own if the library was built with OpenMP.
template <class Body>
void for_each_part(Index parts, const Body& body) {
  if (parts <= 1) {
    body(Index{0});
    return;
  }
#ifdef _OPENMP
#pragma omp parallel for schedule(static, 1) num_threads(static_cast <int>(parts))
#endif
  for (Index part = 0; part < parts; ++part) body(part);
}

/// Elements that are worth a thread: below this, waking one costs more than it saves.
inline constexpr Index kElementsPerThread = 8192;

/// A piece of a tensor that an element kernel can take by itself.
struct Piece {
  kernels::BlockShape shape;
  Index offset;   ///< of its first element
  Index channel;  ///< its first one
};

/// Calls body(piece) for pieces that cover the tensor: whole samples, rows where the channels lie together, or single
/// planes' channels where there are fewer samples than threads.
template <class Body>
void for_each_piece(const kernels::BlockShape& shape, int threads, const Body& body) {
  const Index channels = shape.sample.channels;
  const Index positions = shape.sample.positions;
  const Index elements = shape.samples * channels * positions;
  const Index parts = std::clamp<Index>(elements / kElementsPerThread, 1, threads);
  if (shape.sample.is_row_major()) {
    const Index rows = shape.samples * positions;
    for_each_part(std::min(parts, rows), [&](Index part) {
      const Range range = part_of(rows, part, std::min(parts, rows));
      body(Piece{{range.end - range.begin, {channels, 1, true}, shape.streams}, range.begin * channels, 0});
    });
  } else if (shape.samples >= parts) {
    for_each_part(parts, [&](Index part) {
      const Range range = part_of(shape.samples, part, parts);
      body(Piece{{range.end - range.begin, shape.sample, shape.streams}, range.begin * channels * positions, 0});
    });
  } else {
    const Index slices = std::min(parts, channels);
    for_each_part(slices, [&](Index part) {
      const Range range = part_of(channels, part, slices);
      for (Index n = 0; n < shape.samples; ++n) {
        body(Piece{
            {1, {range.end - range.begin, positions, false}}, (n * channels + range.begin) * positions, range.begin});
      }
    });
  }
}

}  // namespace syncbn::layer
