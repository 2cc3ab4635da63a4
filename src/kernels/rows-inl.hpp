// SPDX-License-Identifier: MIT
// How the rows of channels-last samples are walked, with vectors. Included once per target.
#if defined(SYNCBN_KERNELS_ROWS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_ROWS_INL
#undef SYNCBN_KERNELS_ROWS_INL
#else
#define SYNCBN_KERNELS_ROWS_INL
#endif

#include <algorithm>

#include "kernels/vectors-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

/// Calls body(c, access) for the C channels of a row, a vector at a time.
template <class Body>
HWY_INLINE void for_channel_vectors(Index channels, const Body& body) {
  Index c = 0;
  for (; c + kWidth <= channels; c += kWidth) body(c, Whole{});
  if (c < channels) body(c, First{channels - c});
}

/// Vectors in a tile of channels. The rows of a group are added to the sums of one tile before the next tile's turn, so
/// the sums stay in registers meanwhile.
inline constexpr Index kSumVectors = 2;

/// Many, so that sums are loaded and stored rarely: one input 8 (0.12 to 0.14 ns an element; 4: 0.14 to 0.2, 2: 0.17 to
/// 0.29), two inputs 4. But few where data from beyond the core's own cache would be walked in another order than that of
/// their addresses: 4 in rows of 128 to 512 channels of one input from memory, 2 in such rows of two from anywhere but L2,
/// and 1 where those are longer than 1 KiB: the processor's own prefetcher then sees addresses that only grow.
template <class Rows>
HWY_INLINE Index rows_per_group(SampleShape shape) {
  constexpr Index kSmallSample = Index{1} << 18;
  const Index channels = shape.channels;
  if (channels < kSumVectors * kWidth) return 64;  // one stream, however many rows
  const bool is_medium_row = channels >= 128 && channels <= 512;
  if (Rows::kInputs == 1) return shape.from_memory && is_medium_row ? 4 : 8;
  if (!is_medium_row || channels * shape.positions < kSmallSample) return 4;
  const Index row_bytes = channels * Index{sizeof(typename Rows::Element)};
  return shape.from_memory && row_bytes > 1024 && row_bytes <= 2048 ? 1 : 2;
}

/// Rows are a struct with: State, two sums of one vector of channels with what else they need; start(c, is_first,
/// access); add(state, element, access); finish(state, c, access); prefetch(element, bytes ahead) of kInputs inputs.
template <Index kVectors, class Rows, class Access>
HWY_INLINE void sum_row_tile(const Rows& rows, Index begin, Index end, Index pitch, Index c, Access access) {
  typename Rows::State state[kVectors];
  for (Index v = 0; v < kVectors; ++v) state[v] = rows.start(c + v * kWidth, begin == 0, access);
  for (Index s = begin; s < end; ++s) {
    for (Index v = 0; v < kVectors; ++v) rows.add(state[v], s * pitch + c + v * kWidth, access);
  }
  for (Index v = 0; v < kVectors; ++v) rows.finish(state[v], c + v * kWidth, access);
}

/// The sums of whole rows of so few channels stay in registers from the first row to the last: with a mean 24 of 32. Data is
/// then read in the order of addresses, which the processor's own prefetcher follows: 32x64x112x112 takes 0.8 of the time that
/// it takes in tiles, forward and backward.
inline constexpr Index kRowVectorsInRegisters = kWidth == 8 ? 8 : 0;

template <Index kVectors, class Rows>
HWY_INLINE bool sum_rows_in_registers(SampleShape shape, const Rows& rows) {
  if constexpr (kVectors > kRowVectorsInRegisters) {
    return false;
  } else {
    if (shape.channels != kVectors * kWidth) return sum_rows_in_registers<2 * kVectors>(shape, rows);
    if (shape.pitch_or_channels() != shape.channels) return false;
    sum_row_tile<kVectors>(rows, 0, shape.positions, shape.channels, 0, Whole{});
    return true;
  }
}

template <class Rows>
HWY_INLINE void sum_rows(SampleShape shape, const Rows& rows) {
  if (sum_rows_in_registers<4>(shape, rows)) return;
  constexpr Index kTile = kSumVectors * kWidth;
  constexpr Index kBytesAhead = Rows::kInputs == 1 ? 2 * kPrefetchBytes : kPrefetchBytes / Rows::kInputs;
  const Index pitch = shape.pitch_or_channels();
  const Index group = rows_per_group<Rows>(shape);
  const Index group_bytes = group * pitch * Index{sizeof(typename Rows::Element)};
  for (Index begin = 0; begin < shape.positions; begin += group) {
    const Index end = std::min(begin + group, shape.positions);
    Index c = 0;
    for (; c + kTile <= shape.channels; c += kTile) {
      const Index ahead_of = begin * pitch + c * group;
      if (shape.channels > kLongRow) {
        prefetch_ahead<Cache::second, kTile>(rows, ahead_of, group, group_bytes);
      } else if (group > 1) {
        prefetch_ahead<Cache::first, kTile>(rows, ahead_of, group, kBytesAhead);
      }
      sum_row_tile<kSumVectors>(rows, begin, end, pitch, c, Whole{});
    }
    for (; c + kWidth <= shape.channels; c += kWidth) sum_row_tile<1>(rows, begin, end, pitch, c, Whole{});
    if (c < shape.channels) sum_row_tile<1>(rows, begin, end, pitch, c, First{shape.channels - c});
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
