// SPDX-License-Identifier: MIT
// Matrix products. The only place where the trainer uses Eigen.
#pragma once

#include "buffer.hpp"

namespace syncbn::train {

/// Row-major, dense, borrowed, on a kAlignment boundary.
template <class T>
struct ConstMatrix {
  const T* data = nullptr;
  Index rows = 0;
  Index columns = 0;
};

enum class Accumulate { no, yes };

// c = op(a) * op(b), or c += op(a) * op(b). c is dense and aligned, too, and overlaps neither factor.
// Local, one thread. Numerics: for equal shapes the same operations in the same order, so equal factors give equal
// bits.

/// a * b: (m, k) (k, n) -> (m, n)
template <class T>
void multiply(const ConstMatrix<T>& a, const ConstMatrix<T>& b, T* c, Accumulate accumulate = Accumulate::no);

/// transpose(a) * b: (k, m) (k, n) -> (m, n)
template <class T>
void multiply_tn(const ConstMatrix<T>& a, const ConstMatrix<T>& b, T* c, Accumulate accumulate = Accumulate::no);

/// a * transpose(b): (m, k) (n, k) -> (m, n)
template <class T>
void multiply_nt(const ConstMatrix<T>& a, const ConstMatrix<T>& b, T* c, Accumulate accumulate = Accumulate::no);

}  // namespace syncbn::train
