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

/// The most tensors that one sweep reads: x, dy and y.
inline constexpr int kMostInputs = 3;

/// Reads all `in` line by line and, if there is an `out`, writes their exclusive or to it. Pointers are multiples of 64;
/// the first null ends the inputs, none of them: nothing is done. `out` may be one of the inputs.
struct Sweep {
  const void* in[kMostInputs] = {};
  void* out = nullptr;
};

/// `bytes` of each tensor, cut into one part for each of `threads` threads, which go through both sweeps.
struct Traffic {
  Sweep sums, elements;
  std::size_t bytes = 0;
  int threads = 1;
};

/// Reads and writes of whole tensors.
int tensors_of(const Traffic& traffic);

/// Does it all, sums first.
void move(const Traffic& traffic, Moves moves);

}  // namespace syncbn::cli::bench
