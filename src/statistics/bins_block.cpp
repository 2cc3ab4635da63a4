// SPDX-License-Identifier: MIT
#include "statistics/bins_block.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>

namespace syncbn::statistics {
namespace {

std::size_t used_bytes(Index size, int bins) {
  return sizeof(BinsHeader) + static_cast<std::size_t>(size) * (8 * static_cast<std::size_t>(bins) + 2 + 1);
}

Offender first_of(const Offender& a, const Offender& b) {
  return std::tie(a.source, a.accumulator) < std::tie(b.source, b.accumulator) ? a : b;
}

}  // namespace

std::size_t block_bytes(Index size, int bins) { return (used_bytes(size, bins) + 7) / 8 * 8; }

void start_block(std::byte* block, Index size, int bins) {
  BinsHeader header;
  header.size = size;
  header.bins = bins;
  std::memcpy(block, &header, sizeof header);
  clear_bins(view_of(block));
  const std::size_t used = used_bytes(size, bins);
  std::memset(block + used, 0, block_bytes(size, bins) - used);
}

BinsHeader& header_of(std::byte* block) { return *reinterpret_cast<BinsHeader*>(block); }
const BinsHeader& header_of(const std::byte* block) { return *reinterpret_cast<const BinsHeader*>(block); }

BinsView view_of(std::byte* block) {
  const BinsHeader& header = header_of(block);
  auto* bin = reinterpret_cast<std::int64_t*>(block + sizeof(BinsHeader));
  auto* top = reinterpret_cast<std::int16_t*>(bin + header.size * header.bins);
  auto* nonfinite = reinterpret_cast<std::uint8_t*>(top + header.size);
  return {header.size, static_cast<int>(header.bins), bin, top, nonfinite};
}

BinsView view_of(const std::byte* block) { return view_of(const_cast<std::byte*>(block)); }

void deposit(std::byte* block, Index i, double value, std::int64_t source) {
  if (!std::isfinite(value)) {
    BinsHeader& header = header_of(block);
    ++header.nonfinite_terms;
    header.offender = first_of(header.offender, {source, i});
  }
  deposit(view_of(block), i, value);
}

void place_pairs(const std::byte* part, std::byte* whole, Index first) {
  const BinsView from = view_of(part);
  const BinsView to = view_of(whole);
  const Index n = from.size / 2;
  for (const Index half : {Index{0}, Index{1}}) {
    const Index source = half * n;
    const Index target = half * (to.size / 2) + first;
    for (Index k = 0; k < from.bins; ++k) {
      std::copy_n(from.bin + k * from.size + source, n, to.bin + k * to.size + target);
    }
    std::copy_n(from.top + source, n, to.top + target);
    std::copy_n(from.nonfinite + source, n, to.nonfinite + target);
  }
}

void merge_header_of_pairs(const std::byte* part, std::byte* whole, Index first) {
  const BinsHeader& from = header_of(part);
  BinsHeader& to = header_of(whole);
  to.deposits = std::max(to.deposits, from.deposits);
  to.nonfinite_terms += from.nonfinite_terms;
  if (!from.offender.exists()) return;
  const Index n = from.size / 2;
  const Index i = from.offender.accumulator;
  to.offender = first_of(to.offender, {from.offender.source, i < n ? first + i : to.size / 2 + first + i - n});
}

void merge_block(const std::byte* in, std::byte* inout) {
  const BinsHeader& from = header_of(in);
  BinsHeader& to = header_of(inout);
  if (from.size == 0) return;
  if (to.size == 0) {
    std::memcpy(inout, in, block_bytes(from.size, static_cast<int>(from.bins)));
    return;
  }
  to.deposits += from.deposits;
  to.nonfinite_terms += from.nonfinite_terms;
  to.offender = first_of(from.offender, to.offender);
  merge_bins(view_of(inout), view_of(in));
}

}  // namespace syncbn::statistics
