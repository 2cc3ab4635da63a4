// SPDX-License-Identifier: MIT
// Deposits in plain C++: the only code for strips narrower than kStrip, and the whole of the scalar path.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/one.hpp"

namespace syncbn::kernels {

/// Deposits one strip of `width` <= kStrip channels, or nothing if a value does not fit. load(row, channel) gives the
/// pair.
template <int K, class Load>
bool deposit_strip(Index rows, Index channel, Index width, const BinColumns& a, const BinColumns& b, const Load& load) {
  std::int64_t slices_a[kStrip][K] = {};
  std::int64_t slices_b[kStrip][K] = {};
  for (Index r = 0; r < rows; ++r) {
    for (Index i = 0; i < width; ++i) {
      const Index c = channel + i;
      double va, vb;
      load(r, c, va, vb);
      if (!add_slices<K>(va, a.magic[c], slices_a[i])) return false;
      if (!add_slices<K>(vb, b.magic[c], slices_b[i])) return false;
    }
  }
  for (Index i = 0; i < width; ++i) {
    for (Index k = 0; k < K; ++k) {
      a.bin[k * a.stride + channel + i] += slices_a[i][k];
      b.bin[k * b.stride + channel + i] += slices_b[i][k];
    }
  }
  return true;
}

struct LoadPairs {
  PairRows rows;
  void operator()(Index r, Index c, double& a, double& b) const {
    a = rows.a[r * rows.stride + c];
    b = rows.b[r * rows.stride + c];
  }
};

template <class T>
struct LoadSquares {
  const T* x;
  Index pitch;
  void operator()(Index r, Index c, double& a, double& b) const {
    a = static_cast<double>(read(x + r * pitch + c));
    b = a * a;
  }
};

template <class T>
struct LoadGradients {
  const T* x;
  const T* dy;
  Index pitch;
  Mean mean;
  void operator()(Index r, Index c, double& a, double& b) const {
    a = static_cast<double>(read(dy + r * pitch + c));
    b = a * centred(read(x + r * pitch + c), mean.hi[c], mean.lo[c]);
  }
};

template <int K, class Load>
Index deposit_rows(Index rows, Index channels, const BinColumns& a, const BinColumns& b, Index from, const Load& load) {
  for (Index c = from; c < channels; c += kStrip) {
    if (!deposit_strip<K>(rows, c, std::min(kStrip, channels - c), a, b, load)) return c;
  }
  return channels;
}

/// The extremes of a strip's pairs: load(row, channel) gives them.
template <class Load>
void strip_extremes(Index rows, Index from, Index width, const Load& load, StripExtremes& extremes) {
  for (Index i = 0; i < width; ++i) {
    double largest_a = 0.0, largest_b = 0.0;
    for (Index r = 0; r < rows; ++r) {
      double a, b;
      load(r, from + i, a, b);
      const double infinity = std::numeric_limits<double>::infinity();
      largest_a = std::max(largest_a, std::isfinite(a) ? std::fabs(a) : infinity);
      largest_b = std::max(largest_b, std::isfinite(b) ? std::fabs(b) : infinity);
    }
    extremes.a[i] = largest_a;
    extremes.b[i] = largest_b;
  }
}

}  // namespace syncbn::kernels
