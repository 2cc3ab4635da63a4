// SPDX-License-Identifier: MIT
// Sums that do not depend on the order of their terms: for gradients, losses and whatever else ranks add up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "syncbn/export.h"
#include "syncbn/tensor_view.hpp"

namespace syncbn {

class Communicator;

/// Many independent sums of floating-point numbers, each a function of the *set* of its terms: the same bits for every
/// order, grouping, number of threads and ranks, tree of merges, processor and compiler.
///
///   ReproducibleSum sum(parameters.size());
///   for (each sample of mine) sum.add_array(gradient.data());   // one term for each of the sums
///   sum.all_reduce(communicator);                               // collective
///   sum.values(total.data());                                   // rounded once
///
/// Each sum is a binned accumulator: fixed bins of 37 bits, of which those needed by the largest term are kept.
/// Source: Demmel & Nguyen 2015, "Parallel Reproducible Summation", IEEE Trans. Computers 64(7); the proof stands in
/// src/statistics/bins.hpp.
///
/// Error:  at most n * 2^-72 * (largest |term|) for n terms (Precision::bits72), n * 2^-146 (bits146), and half an ulp
///         of the one rounding at the end. So sums of f32 terms within 2^48 of the largest are exact before that.
/// Range:  every finite double, subnormal ones too. A sum beyond the largest double is infinite.
/// Count:  at most 2^26 additions over all ranks, a call of add_array being one; more throw StateError.
/// Not finite: a NaN, or infinities of both signs, make the sum NaN; infinities of one sign make it that.
/// Cost:   8 bytes a bin and 3 more: 27 bytes a sum with bits72, 43 with bits146. add_array: about 10 ns a term, values(): 100 ns a sum.
/// Needs:  round to nearest, and subnormal numbers not flushed to zero (as every program has them unless it asks).
///
/// Not thread-safe; merge() joins what threads have summed apart.
class SYNCBN_API ReproducibleSum {
 public:
  /// How much below the largest term is kept: 3 or 5 bins.
  enum class Precision : std::int32_t { bits72 = 3, bits146 = 5 };

  /// The first term that was not finite: the lowest source, and there the lowest sum.
  struct NonFinite {
    std::int64_t terms = 0;    ///< How many there were.
    std::int64_t source = -1;  ///< set_source() of the object that met the first one; -1: there was none.
    Index sum = -1;            ///< In which of the sums.
  };

  /// `size` sums, 1 to 2^40, all 0. Throws StateError, or std::bad_alloc.
  explicit ReproducibleSum(Index size = 1, Precision precision = Precision::bits72);
  ~ReproducibleSum();
  ReproducibleSum(const ReproducibleSum&);
  ReproducibleSum& operator=(const ReproducibleSum&);
  ReproducibleSum(ReproducibleSum&&) noexcept;
  ReproducibleSum& operator=(ReproducibleSum&&) noexcept;

  Index size() const noexcept;
  Precision precision() const noexcept;

  /// Who adds here, for non_finite(): a rank, say. 0 at first; >= 0.
  void set_source(std::int64_t source);

  /// Forgets all terms.
  void clear();

  /// Adds one term to sum i. Throws StateError if i is out of range.
  void add(Index i, double term);
  /// Adds a*b to sum i, both halves of the exact product (a*b must not overflow, nor its lower half underflow).
  void add_product(Index i, double a, double b);
  /// Adds terms[i] to sum i, for all i: size() terms.
  void add_array(const float* terms);
  void add_array(const double* terms);
  /// Adds `count` terms to sum i.
  void add_terms(Index i, const float* terms, Index count);
  void add_terms(Index i, const double* terms, Index count);

  /// Adds what `other` holds. Throws StateError if size or precision differ.
  void merge(const ReproducibleSum& other);

  /// Sum i, rounded once to nearest.
  double value(Index i = 0) const;
  float value_f32(Index i = 0) const;
  /// All sums, rounded once: size() numbers.
  void values(double* out) const;
  void values(float* out) const;

  NonFinite non_finite() const;

  /// The state as bytes of fixed size, the same on every machine of this byte order: size, precision and terms decide
  /// it, and two payloads of one set of terms are equal.
  std::size_t payload_bytes() const noexcept;
  const std::byte* payload() const noexcept;
  /// Takes a payload in place of what is held. Throws StateError if it is not one of this size and precision.
  void set_payload(const std::byte* payload, std::size_t bytes);
  /// inout <- in and inout merged: both payloads of one size and precision. Commutative and associative, to the byte.
  static void merge_payload(const std::byte* in, std::byte* inout);

  /// Merges over all ranks; each then holds the whole. By one MPI all-reduce with merge_payload as user operation, or
  /// by an all-gather and merges on each rank: the same bytes. (Before it, one message of fixed size makes sure that
  /// all ranks bring the same size and precision.) Collective. Throws MismatchError or StateError on all ranks, or
  /// MpiError.
  void all_reduce(const Communicator& communicator);
  void all_gather_merge(const Communicator& communicator);

 private:
  class SYNCBN_HIDDEN Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace syncbn
