// SPDX-License-Identifier: MIT
// The traffic of the layer's passes without its arithmetic: how fast this machine's memory can serve them.
#pragma once

#include <cstddef>
#include <vector>

namespace syncbn::cli::bench {

/// How memory is moved. Which way is the fastest depends on the size and on the machine.
struct Moves {
  bool streams_stores = false;  ///< Non-temporal stores: no read of the line that is about to be overwritten, and the
                                ///< line leaves the caches.
  bool prefetches = false;      ///< Asks for data two pages ahead, where a hardware prefetcher stops at the page's end.
};

/// All ways that this build has.
std::vector<Moves> all_moves();

/// `bytes` of each tensor, cut into one part for each of `threads` threads. Pointers are multiples of 64.
struct Traffic {
  const void* x;
  const void* dy;  ///< Null in a forward pass.
  void* out;       ///< y or dx, overwritten.
  std::size_t bytes;
  int threads;
};

/// Forward: reads x, then copies x to y (3 * bytes). Backward: reads x and dy, then reads both and writes their
/// exclusive or to dx (5 * bytes).
void move(const Traffic& traffic, Moves moves);

}  // namespace syncbn::cli::bench
