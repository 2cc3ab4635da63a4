// SPDX-License-Identifier: MIT
// The kernels in plain C++, for any processor.
#include <algorithm>

#include "kernels/kernels.hpp"

namespace syncbn::kernels {
namespace {

/// Sums of one plane in kLanes lanes: `term(s)` gives the two addends of position s.
struct LaneSums {
  double first[kLanes] = {};
  double second[kLanes] = {};

  template <class Term>
  void add_plane(Index positions, Term term) {
    Index s = 0;
    for (; s + kLanes <= positions; s += kLanes) add_block(kLanes, s, term);
    add_block(positions - s, s, term);
    for (Index width = kLanes / 2; width > 0; width /= 2) {
      for (Index l = 0; l < width; ++l) {
        first[l] += first[l + width];
        second[l] += second[l + width];
      }
    }
  }

 private:
  template <class Term>
  void add_block(Index lanes, Index s, Term term) {
    for (Index l = 0; l < lanes; ++l) {
      const auto [a, b] = term(s + l);
      first[l] += a;
      second[l] += b;
    }
  }
};

struct Pair {
  double first, second;
};

/// From sums of differences to `first`: mean and M2. A NaN stays a NaN.
void moments_from_differences(double first, double sum, double sum_of_squares, Index count, double& mean, double& m2) {
  const double mean_difference = sum / static_cast<double>(count);
  const double centred = sum_of_squares - sum * mean_difference;
  mean = first + mean_difference;
  m2 = centred < 0.0 ? 0.0 : centred;
}

template <class T>
void sample_moments(const void* data, SampleShape shape, double* mean, double* m2) {
  const T* x = static_cast<const T*>(data);
  const auto [channels, positions, channels_last] = shape;
  if (channels_last || positions == 1) {
    std::fill_n(mean, channels, 0.0);
    std::fill_n(m2, channels, 0.0);
    for (Index s = 1; s < positions; ++s) {
      const T* row = x + s * channels;
      for (Index c = 0; c < channels; ++c) {
        const double d = static_cast<double>(row[c]) - static_cast<double>(x[c]);
        mean[c] += d;
        m2[c] += d * d;
      }
    }
    for (Index c = 0; c < channels; ++c) {
      moments_from_differences(static_cast<double>(x[c]), mean[c], m2[c], positions, mean[c], m2[c]);
    }
    return;
  }
  for (Index c = 0; c < channels; ++c) {
    const T* plane = x + c * positions;
    const double first = static_cast<double>(plane[0]);
    LaneSums sums;
    sums.add_plane(positions, [=](Index s) {
      const double d = static_cast<double>(plane[s]) - first;
      return Pair{d, d * d};
    });
    moments_from_differences(first, sums.first[0], sums.second[0], positions, mean[c], m2[c]);
  }
}

template <class T>
void sample_gradient_sums(const void* x_data, const void* dy_data, SampleShape shape, const double* mean,
                          double* sum_dy, double* sum_dy_xmu) {
  const T* x = static_cast<const T*>(x_data);
  const T* dy = static_cast<const T*>(dy_data);
  const auto [channels, positions, channels_last] = shape;
  if (channels_last || positions == 1) {
    std::fill_n(sum_dy, channels, 0.0);
    std::fill_n(sum_dy_xmu, channels, 0.0);
    for (Index s = 0; s < positions; ++s) {
      for (Index c = 0; c < channels; ++c) {
        const double g = static_cast<double>(dy[s * channels + c]);
        sum_dy[c] += g;
        sum_dy_xmu[c] += g * (static_cast<double>(x[s * channels + c]) - mean[c]);
      }
    }
    return;
  }
  for (Index c = 0; c < channels; ++c) {
    const T* x_plane = x + c * positions;
    const T* dy_plane = dy + c * positions;
    const double mu = mean[c];
    LaneSums sums;
    sums.add_plane(positions, [=](Index s) {
      const double g = static_cast<double>(dy_plane[s]);
      return Pair{g, g * (static_cast<double>(x_plane[s]) - mu)};
    });
    sum_dy[c] = sums.first[0];
    sum_dy_xmu[c] = sums.second[0];
  }
}

/// Calls element(offset, channel) for every element of a block, in memory order.
template <class Element>
void for_each_element(BlockShape shape, Element element) {
  const auto [channels, positions, channels_last] = shape.sample;
  if (channels_last || positions == 1) {
    const Index rows = shape.samples * positions;
    for (Index r = 0; r < rows; ++r) {
      for (Index c = 0; c < channels; ++c) element(r * channels + c, c);
    }
    return;
  }
  for (Index plane = 0; plane < shape.samples * channels; ++plane) {
    const Index c = plane % channels;
    for (Index s = 0; s < positions; ++s) element(plane * positions + s, c);
  }
}

template <class T>
void normalize(const void* x_data, void* y_data, BlockShape shape, ForwardCoefficients k) {
  const T* x = static_cast<const T*>(x_data);
  T* y = static_cast<T*>(y_data);
  for_each_element(shape, [=](Index i, Index c) {
    y[i] = static_cast<T>((static_cast<double>(x[i]) - k.mean[c]) * k.scale[c] + k.shift[c]);
  });
}

template <class T>
void input_gradient(const void* x_data, const void* dy_data, void* dx_data, BlockShape shape, BackwardCoefficients k) {
  const T* x = static_cast<const T*>(x_data);
  const T* dy = static_cast<const T*>(dy_data);
  T* dx = static_cast<T*>(dx_data);
  for_each_element(shape, [=](Index i, Index c) {
    const double xmu = static_cast<double>(x[i]) - k.mean[c];
    const double centred_dy = static_cast<double>(dy[i]) - k.mean_dy[c];
    dx[i] = static_cast<T>((centred_dy - xmu * k.slope[c]) * k.scale[c]);
  });
}

template <class T>
void scale_by_channel(const void* dy_data, void* dx_data, BlockShape shape, const double* scale) {
  const T* dy = static_cast<const T*>(dy_data);
  T* dx = static_cast<T*>(dx_data);
  for_each_element(shape, [=](Index i, Index c) { dx[i] = static_cast<T>(static_cast<double>(dy[i]) * scale[c]); });
}

template <class T>
constexpr KernelTable kPlain = {sample_moments<T>, sample_gradient_sums<T>, normalize<T>, input_gradient<T>,
                                scale_by_channel<T>};

}  // namespace

const KernelTable& table_for(DataType type) { return type == DataType::f64 ? kPlain<double> : kPlain<float>; }

}  // namespace syncbn::kernels
