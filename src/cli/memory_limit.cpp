// SPDX-License-Identifier: MIT
// Loops that do nothing but move memory, a cache line at a time, with the widest registers that the processor has.
// Compiled with -O3 in every build type.
#include "memory_limit.hpp"

#include <algorithm>
#include <cstdint>

// A function compiled for several instruction sets, one of which is chosen when the program is loaded. That needs a
// loader that resolves indirect functions, and no sanitizer, whose run time is not ready then.
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define SYNCBN_FOR_WIDE_REGISTERS __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define SYNCBN_FOR_WIDE_REGISTERS
#endif

namespace syncbn::cli::bench {
namespace {

/// One cache line.
typedef std::uint64_t Line __attribute__((vector_size(64), may_alias));
constexpr std::size_t kLineBytes = sizeof(Line);
constexpr std::size_t kLinesPerTurn = 4;
/// Two pages of 4 KiB. Measured on Zen 4: reading 100 MB gains 20 %, nearer and farther gain less.
constexpr std::size_t kLinesAhead = 8192 / kLineBytes;

/// A range of lines of all tensors.
struct Lines {
  const Line* x;
  const Line* dy;
  Line* out;
  std::size_t count;  ///< A multiple of kLinesPerTurn.
};

#if defined(__has_builtin)
#if __has_builtin(__builtin_nontemporal_store)
#define SYNCBN_STREAMS_STORES 1
inline void stream(const Line& line, Line* out) { __builtin_nontemporal_store(line, out); }
#endif
#endif
#if !defined(SYNCBN_STREAMS_STORES) && defined(__SSE2__) && defined(__GNUC__)
#define SYNCBN_STREAMS_STORES 1
inline void stream(const Line& line, Line* out) {
  typedef float Quarter __attribute__((vector_size(16), may_alias));
  const auto* quarter = reinterpret_cast<const Quarter*>(&line);
  auto* to = reinterpret_cast<float*>(out);
  for (int i = 0; i < 4; ++i) __builtin_ia32_movntps(to + 4 * i, quarter[i]);
}
#endif
#if !defined(SYNCBN_STREAMS_STORES)
#define SYNCBN_STREAMS_STORES 0
inline void stream(const Line& line, Line* out) { *out = line; }
#endif

/// Streamed lines become visible to other threads.
inline void end_of_streams() {
#if SYNCBN_STREAMS_STORES && defined(__SSE2__)
  __builtin_ia32_sfence();
#endif
}

template <bool kPrefetches>
inline __attribute__((always_inline)) void ask_for(const Line* p) {
  if (!kPrefetches) return;
  for (std::size_t i = 0; i < kLinesPerTurn; ++i) __builtin_prefetch(p + kLinesAhead + i);
}

/// Several accumulators, so that the loop waits for loads alone.
template <bool kPrefetches, bool kHasDy>
inline __attribute__((always_inline)) std::uint64_t read_lines(const Lines& lines) {
  const auto [x, dy, out, count] = lines;
  Line seen[kLinesPerTurn] = {};
  for (std::size_t i = 0; i < count; i += kLinesPerTurn) {
    ask_for<kPrefetches>(x + i);
    if (kHasDy) ask_for<kPrefetches>(dy + i);
    for (std::size_t j = 0; j < kLinesPerTurn; ++j) {
      seen[j] |= x[i + j];
      if (kHasDy) seen[j] |= dy[i + j];
    }
  }
  std::uint64_t all = 0;
  for (const Line& line : seen) {
    for (std::size_t k = 0; k < kLineBytes / sizeof(std::uint64_t); ++k) all |= line[k];
  }
  return all;
}

template <bool kStreams, bool kPrefetches, bool kHasDy>
inline __attribute__((always_inline)) void write_lines(const Lines& lines) {
  const auto [x, dy, out, count] = lines;
  for (std::size_t i = 0; i < count; i += kLinesPerTurn) {
    ask_for<kPrefetches>(x + i);
    if (kHasDy) ask_for<kPrefetches>(dy + i);
    for (std::size_t j = 0; j < kLinesPerTurn; ++j) {
      Line line = x[i + j];
      if (kHasDy) line ^= dy[i + j];
      if (kStreams) {
        stream(line, out + i + j);
      } else {
        out[i + j] = line;
      }
    }
  }
  if (kStreams) end_of_streams();
}

// target_clones takes plain functions only: one for each loop and way.
using Read = std::uint64_t (*)(const Lines&);
using Write = void (*)(const Lines&);
#define SYNCBN_DEFINE_LOOPS(name, has_dy)                                                                             \
  SYNCBN_FOR_WIDE_REGISTERS std::uint64_t read_##name(const Lines& l) { return read_lines<false, has_dy>(l); }        \
  SYNCBN_FOR_WIDE_REGISTERS std::uint64_t read_##name##_ahead(const Lines& l) { return read_lines<true, has_dy>(l); } \
  SYNCBN_FOR_WIDE_REGISTERS void write_##name(const Lines& l) { write_lines<false, false, has_dy>(l); }               \
  SYNCBN_FOR_WIDE_REGISTERS void write_##name##_ahead(const Lines& l) { write_lines<false, true, has_dy>(l); }        \
  SYNCBN_FOR_WIDE_REGISTERS void stream_##name(const Lines& l) { write_lines<true, false, has_dy>(l); }               \
  SYNCBN_FOR_WIDE_REGISTERS void stream_##name##_ahead(const Lines& l) { write_lines<true, true, has_dy>(l); }
SYNCBN_DEFINE_LOOPS(forward, false)
SYNCBN_DEFINE_LOOPS(backward, true)
#undef SYNCBN_DEFINE_LOOPS

volatile std::uint64_t last_read;  // nobody reads it, but the loops must read

Read read_of(bool has_dy, Moves moves) {
  if (has_dy) return moves.prefetches ? read_backward_ahead : read_backward;
  return moves.prefetches ? read_forward_ahead : read_forward;
}

Write write_of(bool has_dy, Moves moves) {
  if (moves.streams_stores) {
    if (has_dy) return moves.prefetches ? stream_backward_ahead : stream_backward;
    return moves.prefetches ? stream_forward_ahead : stream_forward;
  }
  if (has_dy) return moves.prefetches ? write_backward_ahead : write_backward;
  return moves.prefetches ? write_forward_ahead : write_forward;
}

/// Part `part` of the traffic, to whole turns: of the last few hundred bytes a bench can do without.
Lines part_of(const Traffic& traffic, int part) {
  const std::size_t turns = traffic.bytes / (kLineBytes * kLinesPerTurn);
  const auto parts = static_cast<std::size_t>(traffic.threads);
  const auto begin_of = [&](std::size_t i) { return turns * i / parts * kLinesPerTurn; };
  const std::size_t begin = begin_of(static_cast<std::size_t>(part));
  const std::size_t end = begin_of(static_cast<std::size_t>(part) + 1);
  const auto* dy = static_cast<const Line*>(traffic.dy);
  return {static_cast<const Line*>(traffic.x) + begin, dy == nullptr ? nullptr : dy + begin,
          static_cast<Line*>(traffic.out) + begin, end - begin};
}

}  // namespace

std::vector<Moves> all_moves() {
  if (SYNCBN_STREAMS_STORES == 0) return {{false, false}, {false, true}};
  return {{false, false}, {false, true}, {true, false}, {true, true}};
}

void move(const Traffic& traffic, Moves moves) {
  const Read read = read_of(traffic.dy != nullptr, moves);
  const Write write = write_of(traffic.dy != nullptr, moves);
#ifdef _OPENMP
#pragma omp parallel for schedule(static, 1) num_threads(traffic.threads) if (traffic.threads > 1)
#endif
  for (int part = 0; part < traffic.threads; ++part) {
    const Lines lines = part_of(traffic, part);
    const std::uint64_t all = read(lines);
    if (part == 0) last_read = all;
    write(lines);
  }
}

}  // namespace syncbn::cli::bench
