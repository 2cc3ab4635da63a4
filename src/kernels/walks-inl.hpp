// SPDX-License-Identifier: MIT
// How an element pass walks over a tensor, with vectors. Included once per target.
#if defined(SYNCBN_KERNELS_WALKS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_WALKS_INL
#undef SYNCBN_KERNELS_WALKS_INL
#else
#define SYNCBN_KERNELS_WALKS_INL
#endif

#include <algorithm>

#include "hwy/cache_control.h"
#include "kernels/parts-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

/// Vectors that a row gets at once: whole cache lines, or stores past the cache would write them in pieces.
inline constexpr Index kTileVectors = 4;

/// Elements that a pass works on at once.
template <class Pass>
inline constexpr Index kLanesOf = static_cast<Index>(hn::MaxLanes(typename Pass::Lanes()));
template <class Pass>
using WholeFor = WholeOf<typename Pass::Lanes>;
template <class Pass>
using FirstFor = FirstOf<typename Pass::Lanes>;
template <class Pass>
using StreamingFor = StreamingOf<typename Pass::Lanes>;

/// Elements from c on of kRows rows.
template <Index kRows, Index kVectors, class Pass, class Access>
HWY_INLINE void run_tile(const Pass& pass, Index row, Index pitch, Index c, Access access) {
  typename Pass::Coefficients k[kVectors];
  for (Index v = 0; v < kVectors; ++v) k[v] = pass.get(c + v * kLanesOf<Pass>, WholeFor<Pass>{});
  for (Index r = 0; r < kRows; ++r) {
    for (Index v = 0; v < kVectors; ++v) pass.apply(row + r * pitch + c + v * kLanesOf<Pass>, k[v], access);
  }
}

/// Of what is read and written: stays in the core's own cache.
inline constexpr Index kSmallPass = Index{2} << 20;

/// What a tile asks for: nothing, lines kPrefetchBytes ahead, or its part of the next rows.
enum class Prefetch { none, near, next_rows };

/// kRows rows of C elements, the first at element `row`.
template <Index kRows, Prefetch kPrefetch, class Pass, class Access>
HWY_INLINE void run_tiles(const Pass& pass, Index row, Index pitch, Index channels, Access access) {
  constexpr Index kTile = kTileVectors * kLanesOf<Pass>;
  Index c = 0;
  for (; c + kTile <= channels; c += kTile) {
    if (kPrefetch == Prefetch::near) {
      prefetch_ahead<Cache::first, kTile>(pass, row + c * kRows, kRows, kPrefetchBytes / Pass::kInputs);
    } else if (kPrefetch == Prefetch::next_rows) {
      const Index bytes = kRows * pitch * Index{sizeof(typename Pass::Element)};
      prefetch_ahead<Cache::second, kTile>(pass, row + c * kRows, kRows, bytes);
    }
    run_tile<kRows, kTileVectors>(pass, row, pitch, c, access);
  }
  for (; c + kLanesOf<Pass> <= channels; c += kLanesOf<Pass>) run_tile<kRows, 1>(pass, row, pitch, c, access);
  if (c == channels) return;
  const FirstFor<Pass> tail{channels - c};
  const auto k = pass.get(c, tail);
  for (Index r = 0; r < kRows; ++r) pass.apply(row + r * pitch + c, k, tail);
}

template <Index kTileRows, Prefetch kPrefetch, class Pass, class Access>
HWY_INLINE void run_all_rows_by(Index rows, Index pitch, Index channels, const Pass& pass, Access access) {
  Index r = 0;
  for (; r + kTileRows <= rows; r += kTileRows) {
    run_tiles<kTileRows, kPrefetch>(pass, r * pitch, pitch, channels, access);
  }
  for (; r < rows; ++r) run_tiles<1, kPrefetch>(pass, r * pitch, pitch, channels, access);
}

/// Four rows share a load of their coefficients, which do not stay in L1 (2048 channels, one row: 0.56 ns an element; four
/// 0.3).
template <class Pass, class Access>
HWY_INLINE void run_long_rows(Index rows, Index channels, Index bytes, const Pass& pass, Access access) {
  constexpr Index kLargePass = Index{8} << 20;
  if (bytes <= kSmallPass) {
    run_all_rows_by<4, Prefetch::near>(rows, channels, channels, pass, access);
  } else if (bytes <= kLargePass) {
    run_all_rows_by<4, Prefetch::none>(rows, channels, channels, pass, access);
  } else {
    run_all_rows_by<4, Prefetch::next_rows>(rows, channels, channels, pass, access);
  }
}

/// One row at a time is the order of addresses, which the processor's own prefetcher follows best, and stores even more
/// (256 channels: y through the cache 0.35 ns an element, with two rows in turn 0.6 to 0.7). More rows take turns where a
/// row is hardly longer than a tile, where all is in L2 anyway, and where one input is asked for ahead while stores go past
/// the cache (256 channels: 0.18 ns, with one row 0.21). Elsewhere it does not pay to ask ahead.
template <class Pass, class Access>
HWY_INLINE void run_all_rows(Index rows, Index pitch, Index channels, bool streams, const Pass& pass, Access access) {
  const Index bytes = rows * channels * Index{sizeof(typename Pass::Element)} * (Pass::kInputs + 1);
  if (pitch != channels) {  // parts of rows: not in the order of addresses anyway
    run_all_rows_by<2, Prefetch::near>(rows, pitch, channels, pass, access);
  } else if (channels > kLongRow) {
    run_long_rows(rows, channels, bytes, pass, access);
  } else if (channels < 128) {
    run_all_rows_by<4, Prefetch::near>(rows, pitch, channels, pass, access);
  } else if (bytes <= kSmallPass || (streams && Pass::kInputs == 1)) {
    run_all_rows_by<2, Prefetch::near>(rows, pitch, channels, pass, access);
  } else {
    run_all_rows_by<1, Prefetch::none>(rows, pitch, channels, pass, access);
  }
}

/// Elements [begin, end) that need not begin at channel 0; coefficients(i) gives those of elements i and following.
template <class Pass, class Coefficients>
HWY_INLINE void run_streaming(Index begin, Index end, const Pass& pass, const Coefficients& coefficients) {
  Index i = begin;
  const Index head = std::min(StreamingFor<Pass>::before_aligned(pass.output() + i), end - i);
  if (head > 0) {
    pass.apply(i, coefficients(i, FirstFor<Pass>{head}), FirstFor<Pass>{head});
    i += head;
  }
  for (; i + kLanesOf<Pass> <= end; i += kLanesOf<Pass>)
    pass.apply(i, coefficients(i, WholeFor<Pass>{}), StreamingFor<Pass>{});
  if (i < end) pass.apply(i, coefficients(i, FirstFor<Pass>{end - i}), FirstFor<Pass>{end - i});
}

/// Rows of more channels than this are long enough for a tail of their own, past the cache and through it.
inline constexpr Index kFlatChannels = 768;
inline constexpr Index kFlatChannelsInCache = 32;

/// Coefficients that go on with channel 0 behind the last, so that a vector of elements may begin at any channel.
template <class D>
class CyclicRows {
 public:
  using Number = hn::TFromD<D>;
  explicit CyclicRows(Index channels) : channels_(channels) {}

  ForwardRows<Number> cyclic(const ForwardRows<Number>& k) {
    return {cyclic(k.mean_hi), cyclic(k.mean_lo), cyclic(k.scale), cyclic(k.shift)};
  }
  BackwardRows<Number> cyclic(const BackwardRows<Number>& k) {
    return {cyclic(k.mean_hi), cyclic(k.mean_lo), cyclic(k.scale), cyclic(k.slope), cyclic(k.offset), cyclic(k.invstd)};
  }
  const Number* cyclic(const Number* values) {
    if (values == nullptr) return nullptr;
    Number* to = rows_[used_++];
    std::copy_n(values, channels_, to);
    for (Index i = 0; i < kMore; ++i) to[channels_ + i] = to[i];
    return to;
  }
  NoRows cyclic(NoRows) { return {}; }

 private:
  static constexpr Index kMore = static_cast<Index>(hn::MaxLanes(D()));
  Index channels_;
  int used_ = 0;
  alignas(64) Number rows_[6][kFlatChannels + kMore];
};

/// Elements [0, end) of dense rows of C elements, of whatever number, without a tail in every row. Stores past the cache
/// must not stop in the middle of lines: 127 channels took five times as long.
template <class Pass, class Access>
HWY_INLINE void run_flat(Index head, Index end, Index channels, const Pass& pass, Access access) {
  constexpr Index kLanes = kLanesOf<Pass>;
  CyclicRows<typename Pass::Lanes> rows(channels);
  Pass flat = pass;
  flat.k = rows.cyclic(pass.k);

  Index i = std::min(head, end);
  if (i > 0) flat.apply(0, flat.get(0, FirstFor<Pass>{i}), FirstFor<Pass>{i});
  Index c = i % channels;
  const Index step = kLanes % channels;
  for (; i + kLanes <= end; i += kLanes) {
    flat.apply(i, flat.get(c, WholeFor<Pass>{}), access);
    c += step;
    if (c >= channels) c -= channels;
  }
  if (i < end) flat.apply(i, flat.get(c, FirstFor<Pass>{end - i}), FirstFor<Pass>{end - i});
}

template <class Pass>
HWY_INLINE void run_rows(BlockShape shape, const Pass& pass) {
  const Index channels = shape.sample.channels;
  const Index pitch = shape.sample.pitch_or_channels();
  const Index rows = shape.samples * shape.sample.positions;
  const bool has_tails = pitch % kLanesOf<Pass> != 0 || channels % kLanesOf<Pass> != 0;
  const bool streams = shape.streams && StreamingFor<Pass>::can_be_aligned(pass.output());
  if (has_tails && pitch == channels && channels <= (streams ? kFlatChannels : kFlatChannelsInCache) && rows >= 8) {
    const Index end = rows * channels;
    if (streams)
      return run_flat(StreamingFor<Pass>::before_aligned(pass.output()), end, channels, pass, StreamingFor<Pass>{});
    return run_flat(0, end, channels, pass, WholeFor<Pass>{});
  }
  if (!streams) {
    run_all_rows(rows, pitch, channels, false, pass, WholeFor<Pass>{});
  } else if (StreamingFor<Pass>::is_aligned(pass.output()) && !has_tails) {
    run_all_rows(rows, pitch, channels, true, pass, StreamingFor<Pass>{});
  } else {
    for (Index row = 0; row < rows * pitch; row += pitch) {
      run_streaming(row, row + channels, pass,
                    [&](Index i, auto access) HWY_ATTR { return pass.get(i - row, access); });
    }
  }
}

/// Planes of at least a vector, one behind the other, as one array: a vector may have the end of one plane and the beginning
/// of the next. So there are no tails, and stores past the cache write whole lines however long a plane is. The first `head`
/// elements by themselves.
template <class Pass, class Access>
HWY_INLINE void run_joined_planes(Index begin, Index planes, Index positions, Index head, const Pass& pass,
                                  Access access) {
  constexpr Index kLanes = kLanesOf<Pass>;
  auto k = pass.broadcast_from(0);
  if (head > 0) pass.apply(begin, k, FirstFor<Pass>{head});
  Index i = begin + head;
  Index end = begin + positions;
  for (Index c = 1; c < planes; ++c, end += positions) {
    for (; i + kLanes <= end; i += kLanes) pass.apply(i, k, access);
    const auto next = pass.broadcast_from(c);
    if (i < end) {
      pass.apply(i, Pass::either(hn::FirstN(typename Pass::Lanes(), static_cast<size_t>(end - i)), k, next), access);
      i += kLanes;
    }
    k = next;
  }
  for (; i + kLanes <= end; i += kLanes) pass.apply(i, k, access);
  if (i < end) pass.apply(i, k, FirstFor<Pass>{end - i});
}

template <class Pass>
HWY_INLINE void run_planes(BlockShape shape, const Pass& pass) {
  const Index channels = shape.sample.channels;
  const Index positions = shape.sample.positions;
  const bool streams = shape.streams && StreamingFor<Pass>::can_be_aligned(pass.output());
  for (Index n = 0; n < shape.samples; ++n) {
    const Index begin = n * shape.sample.pitch_or_channels() * positions;
    if (positions < kLanesOf<Pass>) {
      for (Index c = 0; c < channels; ++c) {
        pass.apply(begin + c * positions, pass.broadcast_from(c), FirstFor<Pass>{positions});
      }
    } else if (streams) {
      const Index head = StreamingFor<Pass>::before_aligned(pass.output() + begin);
      run_joined_planes(begin, channels, positions, head, pass, StreamingFor<Pass>{});
    } else {
      run_joined_planes(begin, channels, positions, 0, pass, WholeFor<Pass>{});
    }
  }
}

template <class Pass>
HWY_INLINE void run_pass(BlockShape shape, const Pass& pass) {
  shape.sample.is_row_major() ? run_rows(shape, pass) : run_planes(shape, pass);
  if (shape.streams) hwy::FlushStream();
}

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
