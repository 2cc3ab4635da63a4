// SPDX-License-Identifier: MIT
// The kernels in plain C++, for any processor: the path SYNCBN_ISA=scalar, and the twin that the vector paths are
// tested against, byte by byte.
#include <algorithm>

#include "kernels/plain_deposit.hpp"
#include "kernels/tables.hpp"

namespace syncbn::kernels {
namespace {

struct Pair {
  double first, second;
};

/// Sums of one plane in kLanes lanes: of a, and of a*b, where term(s) gives a and b of position s.
template <class Term>
Pair sum_plane(Index positions, const Term& term) {
  double first[kLanes] = {};
  double second[kLanes] = {};
  for (Index s = 0; s < positions; ++s) {
    const Pair ab = term(s);
    first[s % kLanes] += ab.first;
    second[s % kLanes] = std::fma(ab.first, ab.second, second[s % kLanes]);
  }
  for (Index width = kLanes / 2; width > 0; width /= 2) {
    for (Index l = 0; l < width; ++l) {
      first[l] += first[l + width];
      second[l] += second[l + width];
    }
  }
  return {first[0], second[0]};
}

template <class T>
void plane_sums(const void* data, SampleShape shape, PlaneSums sums) {
  const T* x = static_cast<const T*>(data);
  if (!shape.is_row_major()) {
    for (Index c = 0; c < shape.channels; ++c) {
      const T* plane = x + c * shape.positions;
      const double first = static_cast<double>(read(plane));
      const Pair sum = sum_plane(shape.positions, [=](Index s) {
        const double d = static_cast<double>(read(plane + s)) - first;
        return Pair{d, d};
      });
      sums.first[c] = first;
      sums.d[c] = sum.first;
      sums.dd[c] = sum.second;
    }
    return;
  }
  for (Index c = 0; c < shape.channels; ++c) sums.first[c] = static_cast<double>(read(x + c));
  std::fill_n(sums.d, shape.channels, 0.0);
  std::fill_n(sums.dd, shape.channels, 0.0);
  for (Index s = 0; s < shape.positions; ++s) {
    for (Index c = 0; c < shape.channels; ++c) {
      const double d = static_cast<double>(read(x + s * shape.pitch_or_channels() + c)) - sums.first[c];
      sums.d[c] += d;
      sums.dd[c] = std::fma(d, d, sums.dd[c]);
    }
  }
}

template <class T>
void moment_rows(PlaneSums sums, Index channels, Index positions, double* a, double* b, Index stride) {
  constexpr Index kRows = moment_rows_for(DataTypeOf<T>::value);
  for (Index c = 0; c < channels; ++c) {
    double terms_a[kRows], terms_b[kRows];
    if constexpr (std::is_same_v<T, double>) {
      moment_terms_one(sums.first[c], sums.d[c], sums.dd[c], static_cast<double>(positions), terms_a, terms_b);
    } else {
      moment_pair_one(sums.first[c], sums.d[c], sums.dd[c], static_cast<double>(positions), terms_a, terms_b);
    }
    for (Index r = 0; r < kRows; ++r) {
      a[r * stride + c] = terms_a[r];
      b[r * stride + c] = terms_b[r];
    }
  }
}

template <class T>
void gradient_sums(const void* x_data, const void* dy_data, SampleShape shape, Mean mean, double* sum_dy,
                   double* sum_dy_xmu) {
  const T* x = static_cast<const T*>(x_data);
  const T* dy = static_cast<const T*>(dy_data);
  if (!shape.is_row_major()) {
    for (Index c = 0; c < shape.channels; ++c) {
      const T* x_plane = x + c * shape.positions;
      const T* dy_plane = dy + c * shape.positions;
      const Pair sum = sum_plane(shape.positions, [=](Index s) {
        const double g = static_cast<double>(read(dy_plane + s));
        return Pair{g, centred(read(x_plane + s), mean.hi[c], mean.lo[c])};
      });
      sum_dy[c] = sum.first;
      sum_dy_xmu[c] = sum.second;
    }
    return;
  }
  std::fill_n(sum_dy, shape.channels, 0.0);
  std::fill_n(sum_dy_xmu, shape.channels, 0.0);
  for (Index s = 0; s < shape.positions; ++s) {
    for (Index c = 0; c < shape.channels; ++c) {
      const Index i = s * shape.pitch_or_channels() + c;
      const double g = static_cast<double>(read(dy + i));
      sum_dy[c] += g;
      sum_dy_xmu[c] = std::fma(g, centred(read(x + i), mean.hi[c], mean.lo[c]), sum_dy_xmu[c]);
    }
  }
}

template <int K>
Index deposit_pairs(PairRows rows, BinColumns a, BinColumns b, Index from) {
  return deposit_rows<K>(rows.rows, rows.channels, a, b, from, LoadPairs{rows});
}

template <class T>
Index deposit_values(const void* x, Index rows, Index pitch, Index channels, BinColumns a, BinColumns b, Index from) {
  return deposit_rows<3>(rows, channels, a, b, from, LoadSquares<T>{static_cast<const T*>(x), pitch});
}

template <class T>
Index deposit_gradients(const void* x, const void* dy, Index rows, Index pitch, Index channels, Mean mean, BinColumns a,
                        BinColumns b, Index from) {
  const LoadGradients<T> load{static_cast<const T*>(x), static_cast<const T*>(dy), pitch, mean};
  return deposit_rows<bins_for(DataTypeOf<T>::value)>(rows, channels, a, b, from, load);
}

template <class T>
void expand_values(const void* x_data, Index rows, Index channels, Index from, Index width, double* a, double* b) {
  const T* x = static_cast<const T*>(x_data) + from;
  for (Index r = 0; r < rows; ++r, x += channels) {
    for (Index c = 0; c < width; ++c) {
      const double value = static_cast<double>(read(x + c));
      *a++ = value;
      *b++ = value * value;
    }
    if (value_rows_for(DataTypeOf<T>::value) == 1) continue;
    for (Index c = 0; c < width; ++c) {
      const double value = static_cast<double>(read(x + c));
      *a++ = 0.0;
      *b++ = std::isfinite(value) ? std::fma(value, value, -(value * value)) : 0.0;
    }
  }
}

template <class T>
void expand_gradients(const void* x_data, const void* dy_data, Index rows, Index channels, Mean mean, Index from,
                      Index width, double* a, double* b) {
  const LoadGradients<T> load{static_cast<const T*>(x_data), static_cast<const T*>(dy_data), channels, mean};
  for (Index r = 0; r < rows; ++r) {
    for (Index c = 0; c < width; ++c) load(r, from + c, *a++, *b++);
  }
}

void pair_extremes(PairRows rows, Index from, Index width, StripExtremes& extremes) {
  strip_extremes(rows.rows, from, width, LoadPairs{rows}, extremes);
}

template <class T>
void value_extremes(const void* x, Index rows, Index channels, Index from, Index width, StripExtremes& extremes) {
  strip_extremes(rows, from, width, LoadSquares<T>{static_cast<const T*>(x), channels}, extremes);
}

template <class T>
void gradient_extremes(const void* x, const void* dy, Index rows, Index channels, Mean mean, Index from, Index width,
                       StripExtremes& extremes) {
  const LoadGradients<T> load{static_cast<const T*>(x), static_cast<const T*>(dy), channels, mean};
  strip_extremes(rows, from, width, load, extremes);
}

/// Calls element(offset, channel) for every element of a block, in memory order.
template <class Element>
void for_each_element(BlockShape shape, const Element& element) {
  const Index channels = shape.sample.channels;
  const Index positions = shape.sample.positions;
  const Index pitch = shape.sample.pitch_or_channels();
  if (shape.sample.is_row_major()) {
    for (Index r = 0; r < shape.samples * positions; ++r) {
      for (Index c = 0; c < channels; ++c) element(r * pitch + c, c);
    }
    return;
  }
  for (Index n = 0; n < shape.samples; ++n) {
    for (Index c = 0; c < channels; ++c) {
      for (Index s = 0; s < positions; ++s) element((n * pitch + c) * positions + s, c);
    }
  }
}

/// fits_float for 16-bit types; the others are always calculated in double.
template <class T, class Coefficients>
bool is_in_float(const Coefficients& k, Index c) {
  return kIsHalf<T> && fits_float(k, c);
}

template <class T>
void normalize(const void* x_data, void* y_data, BlockShape shape, ForwardCoefficients k, Epilogue epilogue) {
  const T* x = static_cast<const T*>(x_data);
  const T* residual = static_cast<const T*>(epilogue.residual);
  T* y = static_cast<T*>(y_data);
  const auto finish = [=](Index i, auto v) {
    using Number = decltype(v);
    if (residual != nullptr) v += static_cast<Number>(read(residual + i));
    write(y + i, static_cast<decltype(read(y))>(epilogue.relu ? relu(v) : v));
  };
  for_each_element(shape, [=](Index i, Index c) {
    if (is_in_float<T>(k, c)) {
      const float xmu = centred_float(static_cast<float>(read(x + i)), k.mean.hi[c]);
      finish(i, std::fma(xmu, static_cast<float>(k.scale[c]), static_cast<float>(k.shift[c])));
    } else {
      finish(i, std::fma(centred(read(x + i), k.mean.hi[c], k.mean.lo[c]), k.scale[c], k.shift[c]));
    }
  });
}

template <class T>
void input_gradient(const void* x_data, const void* dy_data, void* dx_data, BlockShape shape, BackwardCoefficients k) {
  const T* x = static_cast<const T*>(x_data);
  const T* dy = static_cast<const T*>(dy_data);
  T* dx = static_cast<T*>(dx_data);
  for_each_element(shape, [=](Index i, Index c) {
    const auto value = read(x + i);
    const auto g = read(dy + i);
    if (is_in_float<T>(k, c)) {
      const float xmu = centred_float(static_cast<float>(value), k.mean.hi[c]);
      const float rest = std::fma(xmu, static_cast<float>(k.slope[c]), static_cast<float>(k.offset[c]));
      const float result = std::fma(static_cast<float>(g), static_cast<float>(k.scale[c]), rest);
      write(dx + i, static_cast<decltype(g)>(result));
    } else {
      const double xmu = centred(value, k.mean.hi[c], k.mean.lo[c]);
      write(dx + i, input_gradient_one(xmu, g, k.scale[c], k.slope[c], k.offset[c], k.invstd[c]));
    }
  });
}

template <class T>
void scale_by_channel(const void* dy_data, void* dx_data, BlockShape shape, const double* scale) {
  const T* dy = static_cast<const T*>(dy_data);
  T* dx = static_cast<T*>(dx_data);
  for_each_element(shape, [=](Index i, Index c) {
    const auto g = read(dy + i);
    using Number = std::remove_const_t<decltype(g)>;
    if (is_in_float<T>(scale, c)) {
      write(dx + i, static_cast<Number>(g * static_cast<Number>(scale[c])));
    } else {
      write(dx + i, static_cast<Number>(static_cast<double>(g) * scale[c]));
    }
  });
}

template <class T>
void mask_gradient(const void* dy_data, const void* y_data, void* g_data, BlockShape shape) {
  const T* dy = static_cast<const T*>(dy_data);
  const T* y = static_cast<const T*>(y_data);
  T* g = static_cast<T*>(g_data);
  for_each_element(shape, [=](Index i, Index) { write(g + i, masked_by(read(dy + i), read(y + i))); });
}

template <class T>
void masked_gradient_sums(const void* x, const void* dy, const void* y, void* g, SampleShape shape, bool, Mean mean,
                          double* sum_dy, double* sum_dy_xmu) {
  mask_gradient<T>(dy, y, g, {1, shape});
  gradient_sums<T>(x, g, shape, mean, sum_dy, sum_dy_xmu);
}

template <class T>
constexpr KernelTable kPlain = {plane_sums<T>,
                                moment_rows<T>,
                                gradient_sums<T>,
                                masked_gradient_sums<T>,
                                deposit_pairs<bins_for(DataTypeOf<T>::value)>,
                                std::is_same_v<T, double> ? nullptr : deposit_values<T>,
                                deposit_gradients<T>,
                                expand_values<T>,
                                expand_gradients<T>,
                                pair_extremes,
                                value_extremes<T>,
                                gradient_extremes<T>,
                                nullptr,
                                nullptr,
                                normalize<T>,
                                input_gradient<T>,
                                scale_by_channel<T>,
                                mask_gradient<T>};

}  // namespace

const KernelTable& plain_table(DataType type) {
  switch (type) {
    case DataType::f64:
      return kPlain<double>;
    case DataType::bf16:
      return kPlain<bfloat16>;
    case DataType::f16:
      return kPlain<float16>;
    case DataType::f32:
      break;
  }
  return kPlain<float>;
}

}  // namespace syncbn::kernels
