// SPDX-License-Identifier: MIT
// Deposits of 2-D tensors of f32 or narrower: strips of x and x^2, of dy and dy*(x-mean), in the way that suits their values. Included
// once per target.
#if defined(SYNCBN_KERNELS_FLOAT_STRIPS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef SYNCBN_KERNELS_FLOAT_STRIPS_INL
#undef SYNCBN_KERNELS_FLOAT_STRIPS_INL
#else
#define SYNCBN_KERNELS_FLOAT_STRIPS_INL
#endif

#include <algorithm>

#include "kernels/floats-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace syncbn::kernels {
namespace HWY_NAMESPACE {

/// What the values of the two accumulators of a channel are taken for, and whether they are.
struct Ways {
  Values a, b;
};
struct Verdicts {
  Verdict a, b;
  bool fit() const { return a == Verdict::fits && b == Verdict::fits; }
  bool is_misfit() const { return a == Verdict::misfit || b == Verdict::misfit; }
};

/// Accumulators of products, doubles of any last bits.
template <Values kValues>
struct ProductBins {
  using Bins = VectorBins<3, kValues == Values::large ? Reach::full : Reach::near>;
  Bins half[2];

  HWY_INLINE ProductBins(const BinColumns& columns, Index c) : half{Bins(columns, c), Bins(columns, c + kWidth)} {}
  HWY_INLINE void add(const Vector (&products)[2]) {
    for (int h = 0; h < 2; ++h) half[h].add(products[h]);
  }
  HWY_INLINE Verdict verdict() const {
    if (half[0].all_fit() && half[1].all_fit()) return Verdict::fits;
    return kValues == Values::large ? Verdict::misfit : Verdict::too_large;
  }
  HWY_INLINE void slices(int h, Index rows, std::int64_t* out) const {
    for (int k = 0; k < 3; ++k) hn::Store(half[h].slices(k, rows), Integers(), out + k * kStrip);
  }
};

/// x and x^2 of one vector of floats.
template <class T, Values kA, Values kB>
struct ValueStrip {
  static constexpr bool kWithSmallest = kA != Values::fine || kB != Values::fine;
  const T* x;
  Index pitch;
  FloatBins<kA> values;
  SquareBins<kB> squares;
  Magnitudes magnitudes;

  HWY_INLINE void add(Index r) {
    const FloatRow row(x + r * pitch);
    magnitudes.template add<kWithSmallest>(row.floats);
    values.sum.add(values.terms_of(row));
    squares.sum.add(squares.terms_of(row));
  }
  /// Two rows added to each other first: with 16 registers, sums that wait in memory wait half as often.
  HWY_INLINE void add_two(Index r) {
    const FloatRow row(x + r * pitch);
    const FloatRow next(x + (r + 1) * pitch);
    magnitudes.template add<kWithSmallest>(row.floats, next.floats);
    auto value_terms = values.terms_of(row);
    value_terms.add(values.terms_of(next));
    values.sum.add(value_terms);
    auto square_terms = squares.terms_of(row);
    square_terms.add(squares.terms_of(next));
    squares.sum.add(square_terms);
  }
  HWY_INLINE Verdicts verdicts(Index rows) const {
    return {values.verdict(magnitudes, rows), squares.verdict(magnitudes)};
  }
  HWY_INLINE void slices(int h, Index rows, std::int64_t* a, std::int64_t* b) const {
    values.slices(h, rows, a);
    squares.slices(h, rows, b);
  }
};
template <class T>
struct FloatValues {
  static constexpr bool kInPairs = true;
  static constexpr Ways kFirst = {Values::coarse, Values::coarse};
  const T* x;
  Index pitch;

  HWY_INLINE void prefetch(Index ahead, Index r) const { __builtin_prefetch(x + ahead + r * pitch, 0, 2); }
  template <Values kA, Values kB>
  HWY_INLINE ValueStrip<T, kA, kB> strip(Index c, const BinColumns& a, const BinColumns& b) const {
    return {x + c, pitch, {a, c}, {b, c}, {}};
  }
};

/// dy and dy*(x-mean) of one vector of floats. (Two rows at a time are slower here.)
template <class T, Values kA, Values kB>
struct GradientStrip {
  const T* x;
  const T* dy;
  Index pitch;
  Vector mean[2];
  FloatBins<kA> gradients;
  ProductBins<kB> products;
  Magnitudes magnitudes;

  HWY_INLINE void add(Index r) {
    const FloatRow row(dy + r * pitch);
    magnitudes.template add<kA != Values::fine>(row.floats);
    gradients.sum.add(gradients.terms_of(row));
    const FloatRow input(x + r * pitch);
    products.add({hn::Mul(row.doubles[0], hn::Sub(input.doubles[0], mean[0])),
                  hn::Mul(row.doubles[1], hn::Sub(input.doubles[1], mean[1]))});
  }
  HWY_INLINE Verdicts verdicts(Index rows) const { return {gradients.verdict(magnitudes, rows), products.verdict()}; }
  HWY_INLINE void slices(int h, Index rows, std::int64_t* a, std::int64_t* b) const {
    gradients.slices(h, rows, a);
    products.slices(h, rows, b);
  }
};
template <class T>
struct FloatGradients {
  static constexpr bool kInPairs = false;
  static constexpr Ways kFirst = {Values::coarse, Values::fine};
  const T* x;
  const T* dy;
  Index pitch;
  const double* mean;

  HWY_INLINE void prefetch(Index ahead, Index r) const {
    __builtin_prefetch(x + ahead + r * pitch, 0, 2);
    __builtin_prefetch(dy + ahead + r * pitch, 0, 2);
  }
  template <Values kA, Values kB>
  HWY_INLINE GradientStrip<T, kA, kB> strip(Index c, const BinColumns& a, const BinColumns& b) const {
    return {x + c, dy + c, pitch, {load(mean + c), load(mean + c + kWidth)}, {a, c}, {b, c}, {}};
  }
};

/// How many channels ahead lines are asked for: the rows of a block are more streams than the processor's own
/// prefetcher follows. Behind a row's end they are the next block's first; behind the tensor's, nobody's, which is
/// allowed.
inline constexpr Index kChannelsAhead = 4 * kStrip;

/// One full strip, or nothing if its values are not what they are taken for.
template <Values kA, Values kB, class Source>
HWY_NOINLINE Verdicts deposit_floats_as(const Source& source, Index rows, Index channel, const BinColumns& a,
                                        const BinColumns& b) {
  alignas(64) std::int64_t waiting_a[3 * kStrip], waiting_b[3 * kStrip];
  const Index next = channel + kChannelsAhead;
  const Index ahead = next < source.pitch ? next : rows * source.pitch + next - source.pitch;
  for (Index v = 0; v < kStrip; v += kFloats) {
    auto strip = source.template strip<kA, kB>(channel + v, a, b);
    Index r = 0;
    if constexpr (Source::kInPairs) {
      for (; r + 2 <= rows; r += 2) {
        source.prefetch(ahead, r);
        source.prefetch(ahead, r + 1);
        strip.add_two(r);
      }
    }
    for (; r < rows; ++r) {
      source.prefetch(ahead, r);
      strip.add(r);
    }
    const Verdicts verdicts = strip.verdicts(rows);
    if (!verdicts.fit()) return verdicts;
    for (int h = 0; h < 2; ++h) strip.slices(h, rows, waiting_a + v + h * kWidth, waiting_b + v + h * kWidth);
  }
  add_strip<3>(a, channel, waiting_a);
  add_strip<3>(b, channel, waiting_b);
  return {Verdict::fits, Verdict::fits};
}

template <Values kA, class Source>
HWY_INLINE Verdicts deposit_floats_as(Values b_way, const Source& source, Index rows, Index channel,
                                      const BinColumns& a, const BinColumns& b) {
  if (b_way == Values::large) return deposit_floats_as<kA, Values::large>(source, rows, channel, a, b);
  if constexpr (Source::kFirst.b == Values::coarse) {  // products are never coarse
    if (b_way == Values::coarse) return deposit_floats_as<kA, Values::coarse>(source, rows, channel, a, b);
  }
  return deposit_floats_as<kA, Values::fine>(source, rows, channel, a, b);
}
template <class Source>
HWY_INLINE Verdicts deposit_floats_as(Ways ways, const Source& source, Index rows, Index channel, const BinColumns& a,
                                      const BinColumns& b) {
  if (ways.a == Values::large) return deposit_floats_as<Values::large>(ways.b, source, rows, channel, a, b);
  if (ways.a == Values::fine) return deposit_floats_as<Values::fine>(ways.b, source, rows, channel, a, b);
  return deposit_floats_as<Values::coarse>(ways.b, source, rows, channel, a, b);
}

/// What to take the values of one accumulator for, after what suited the strips before.
class Guess {
 public:
  Values get(Values first) const { return is_large_ ? Values::large : 2 * fine_ > tried_ ? Values::fine : first; }
  void note(Values way) {
    ++tried_;
    fine_ += way == Values::fine ? 1 : 0;
    is_large_ = way == Values::large;
  }

 private:
  Index tried_ = 0, fine_ = 0;
  bool is_large_ = false;
};

/// What to take values for next; false if there is nothing.
inline bool improve(Values& way, Verdict verdict) {
  if (verdict == Verdict::fits) return true;
  if (way == Values::large) return false;
  if (verdict == Verdict::too_fine) way = Values::fine;
  if (verdict == Verdict::too_large) way = Values::large;
  return true;
}

/// Deposits a call's strips one after the other.
template <class Source>
class FloatDeposits {
 public:
  /// Where every other strip needs VectorBins, trying costs more than it saves.
  bool is_worth_trying() { return 2 * failed_ <= ++tried_; }

  /// One full strip; if not, nothing.
  HWY_INLINE Verdicts deposit(const Source& source, Index rows, Index channel, const BinColumns& a,
                              const BinColumns& b) {
    Ways ways = {guess_a_.get(Source::kFirst.a), guess_b_.get(Source::kFirst.b)};
    for (;;) {
      const Verdicts verdicts = deposit_floats_as(ways, source, rows, channel, a, b);
      if (verdicts.is_misfit()) return verdicts;
      const bool can_improve = improve(ways.a, verdicts.a) && improve(ways.b, verdicts.b);
      if (can_improve && !verdicts.fit()) continue;
      failed_ += verdicts.fit() ? 0 : 1;
      guess_a_.note(can_improve ? ways.a : Source::kFirst.a);
      guess_b_.note(can_improve ? ways.b : Source::kFirst.b);
      return verdicts;
    }
  }

 private:
  Guess guess_a_, guess_b_;
  Index tried_ = 0, failed_ = 0;
};

}  // namespace HWY_NAMESPACE
}  // namespace syncbn::kernels
HWY_AFTER_NAMESPACE();

#endif
