// SPDX-License-Identifier: MIT
// Loops that do nothing but move memory, a cache line at a time, with the widest registers that the processor has.
// Compiled with -O3 in every build type.
#include "memory_limit.hpp"

#include <algorithm>
#include <cstdint>

// A function compiled for several instruction sets, one of which is chosen when the program is loaded. That needs a
// loader that resolves indirect functions, and no sanitizer, whose run time is not ready then.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SYNCBN_IS_SANITIZED
#elif defined(__has_feature)  // clang
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SYNCBN_IS_SANITIZED
#endif
#endif
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(SYNCBN_IS_SANITIZED)
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

/// A range of lines of the tensors of one sweep.
struct Lines {
  const Line* in[kMostInputs];
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

template <bool kPrefetches, int kInputs>
inline __attribute__((always_inline)) void ask_for(const Lines& lines, std::size_t first) {
  if (!kPrefetches) return;
  for (int k = 0; k < kInputs; ++k) {
    for (std::size_t j = 0; j < kLinesPerTurn; ++j) __builtin_prefetch(lines.in[k] + first + kLinesAhead + j);
  }
}

/// Several accumulators, so that the loop waits for loads alone.
template <bool kPrefetches, int kInputs>
inline __attribute__((always_inline)) std::uint64_t read_lines(const Lines& given) {
  const Lines lines = given;
  Line seen[kLinesPerTurn] = {};
  for (std::size_t i = 0; i < lines.count; i += kLinesPerTurn) {
    ask_for<kPrefetches, kInputs>(lines, i);
    for (std::size_t j = 0; j < kLinesPerTurn; ++j) {
      for (int k = 0; k < kInputs; ++k) seen[j] |= lines.in[k][i + j];
    }
  }
  std::uint64_t all = 0;
  for (const Line& line : seen) {
    for (std::size_t k = 0; k < kLineBytes / sizeof(std::uint64_t); ++k) all |= line[k];
  }
  return all;
}

template <bool kStreams, bool kPrefetches, int kInputs>
inline __attribute__((always_inline)) void write_lines(const Lines& given) {
  const Lines lines = given;
  for (std::size_t i = 0; i < lines.count; i += kLinesPerTurn) {
    ask_for<kPrefetches, kInputs>(lines, i);
    for (std::size_t j = 0; j < kLinesPerTurn; ++j) {
      Line line = lines.in[0][i + j];
      for (int k = 1; k < kInputs; ++k) line ^= lines.in[k][i + j];
      if (kStreams) {
        stream(line, lines.out + i + j);
      } else {
        lines.out[i + j] = line;
      }
    }
  }
  if (kStreams) end_of_streams();
}

// target_clones takes plain functions only: one for each number of inputs and way.
#define SYNCBN_DEFINE_LOOPS(n)                                                                                \
  SYNCBN_FOR_WIDE_REGISTERS std::uint64_t read_##n(const Lines& l) { return read_lines<false, n>(l); }        \
  SYNCBN_FOR_WIDE_REGISTERS std::uint64_t read_##n##_ahead(const Lines& l) { return read_lines<true, n>(l); } \
  SYNCBN_FOR_WIDE_REGISTERS void write_##n(const Lines& l) { write_lines<false, false, n>(l); }               \
  SYNCBN_FOR_WIDE_REGISTERS void write_##n##_ahead(const Lines& l) { write_lines<false, true, n>(l); }        \
  SYNCBN_FOR_WIDE_REGISTERS void stream_##n(const Lines& l) { write_lines<true, false, n>(l); }               \
  SYNCBN_FOR_WIDE_REGISTERS void stream_##n##_ahead(const Lines& l) { write_lines<true, true, n>(l); }
SYNCBN_DEFINE_LOOPS(1)
SYNCBN_DEFINE_LOOPS(2)
SYNCBN_DEFINE_LOOPS(3)
#undef SYNCBN_DEFINE_LOOPS

/// The loops of one number of inputs: [Moves::prefetches], [Moves::streams_stores][Moves::prefetches].
struct Loops {
  std::uint64_t (*read[2])(const Lines&);
  void (*write[2][2])(const Lines&);
};
#define SYNCBN_LOOPS(n)                                                  \
  {                                                                      \
    {read_##n, read_##n##_ahead}, {                                      \
      {write_##n, write_##n##_ahead}, { stream_##n, stream_##n##_ahead } \
    }                                                                    \
  }
const Loops kLoops[kMostInputs] = {SYNCBN_LOOPS(1), SYNCBN_LOOPS(2), SYNCBN_LOOPS(3)};
#undef SYNCBN_LOOPS

volatile std::uint64_t last_read;  // nobody reads it, but the loops must read

int inputs_of(const Sweep& sweep) {
  int count = 0;
  while (count < kMostInputs && sweep.in[count] != nullptr) ++count;
  return count;
}

/// Part `part` of a sweep, to whole turns: of the last few hundred bytes a bench can do without.
Lines part_of(const Traffic& traffic, const Sweep& sweep, int part) {
  const std::size_t turns = traffic.bytes / (kLineBytes * kLinesPerTurn);
  const auto parts = static_cast<std::size_t>(traffic.threads);
  const auto begin_of = [&](std::size_t i) { return turns * i / parts * kLinesPerTurn; };
  const std::size_t begin = begin_of(static_cast<std::size_t>(part));
  const std::size_t end = begin_of(static_cast<std::size_t>(part) + 1);
  Lines lines{};
  for (int k = 0; k < inputs_of(sweep); ++k) lines.in[k] = static_cast<const Line*>(sweep.in[k]) + begin;
  if (sweep.out != nullptr) lines.out = static_cast<Line*>(sweep.out) + begin;
  lines.count = end - begin;
  return lines;
}

void move_part(const Traffic& traffic, const Sweep& sweep, int part, Moves moves) {
  const int inputs = inputs_of(sweep);
  if (inputs == 0) return;  // a rank without samples has no tensors
  const Loops& loops = kLoops[inputs - 1];
  const Lines lines = part_of(traffic, sweep, part);
  if (sweep.out != nullptr) return loops.write[moves.streams_stores][moves.prefetches](lines);
  const std::uint64_t all = loops.read[moves.prefetches](lines);
  if (part == 0) last_read = all;
}

}  // namespace

std::vector<Moves> all_moves() {
  if (SYNCBN_STREAMS_STORES == 0) return {{false, false}, {false, true}};
  return {{false, false}, {false, true}, {true, false}, {true, true}};
}

int tensors_of(const Traffic& traffic) {
  int count = 0;
  for (const Sweep& sweep : {traffic.sums, traffic.elements})
    count += inputs_of(sweep) + (sweep.out != nullptr ? 1 : 0);
  return count;
}

void move(const Traffic& traffic, Moves moves) {
#ifdef _OPENMP
#pragma omp parallel for schedule(static, 1) num_threads(traffic.threads) if (traffic.threads > 1)
#endif
  for (int part = 0; part < traffic.threads; ++part) {
    move_part(traffic, traffic.sums, part, moves);
    move_part(traffic, traffic.elements, part, moves);
  }
}

}  // namespace syncbn::cli::bench
