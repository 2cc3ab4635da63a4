// SPDX-License-Identifier: MIT
// Many binned accumulators as one block of bytes: what travels between ranks.
#pragma once

#include <cstddef>

#include "statistics/bins.hpp"

namespace syncbn::statistics {

/// Where a value that is not finite was met first: by source (a rank), then by accumulator.
struct Offender {
  static constexpr std::int64_t kNobody = INT64_MAX;
  std::int64_t source = kNobody;
  std::int64_t accumulator = kNobody;
  bool exists() const { return source != kNobody; }
};

/// In front of a block. A block of zero bytes is the empty set of any size.
struct BinsHeader {
  std::int64_t size = 0;
  std::int64_t bins = 0;
  std::int64_t deposits = 0;  ///< The most that any accumulator may have had.
  std::int64_t nonfinite_terms = 0;
  Offender offender;
};

/// Bytes of a block: header, bins (8 each), tops (2 each), sets of non-finite kinds (1 each), padded to 8.
std::size_t block_bytes(Index size, int bins);

/// Makes `block`, of block_bytes(size, bins) and aligned to 8, the empty set.
void start_block(std::byte* block, Index size, int bins);

BinsHeader& header_of(std::byte* block);
const BinsHeader& header_of(const std::byte* block);

/// The accumulators in a block.
BinsView view_of(std::byte* block);
/// The same to read: nothing may be written through it.
BinsView view_of(const std::byte* block);

/// Adds one value to accumulator i. One that is not finite is counted, and remembered with its source if it is the
/// first.
void deposit(std::byte* block, Index i, double value, std::int64_t source);

/// The pairs (i, n+i) of `part`, 2n accumulators, become the pairs from `first` on of `whole`, which had nothing there.
/// Headers apart; parts that do not overlap may be placed at the same time.
void place_pairs(const std::byte* part, std::byte* whole, Index first);
/// What the header of `part` says of its pairs, for `whole`. The parts have had the same number of deposits.
void merge_header_of_pairs(const std::byte* part, std::byte* whole, Index first);

/// inout <- in united with inout. Commutative and associative, exactly.
void merge_block(const std::byte* in, std::byte* inout);

}  // namespace syncbn::statistics
