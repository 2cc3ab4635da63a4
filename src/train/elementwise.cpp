// SPDX-License-Identifier: MIT
#include "elementwise.hpp"

#include <algorithm>
#include <numeric>

namespace syncbn::train {

template <class T>
const Tensor<T>& Relu<T>::forward(const Tensor<T>& x, const Pass&) {
  y_.resize(x.samples, x.shape);
  // A NaN stays one: a diverged run must not look healthy.
  std::transform(x.values.begin(), x.values.end(), y_.values.begin(), [](T v) { return v < T(0) ? T(0) : v; });
  return y_;
}

template <class T>
const Tensor<T>& Relu<T>::backward(const Tensor<T>& dy, const Pass&, InputGradient want) {
  if (want == InputGradient::unwanted) return dx_;
  dx_.resize(y_.samples, y_.shape);
  std::transform(y_.values.begin(), y_.values.end(), dy.values.begin(), dx_.values.begin(),
                 [](T y, T d) { return y > T(0) ? d : T(0); });
  return dx_;
}

template <class T>
const Tensor<T>& MaxPool<T>::forward(const Tensor<T>& x, const Pass&) {
  x_shape_ = x.shape;
  y_.resize(x.samples, pooled(x.shape));
  taken_.resize(y_.values.size());
  const Index width = x.shape.width;
  std::size_t at = 0;
  for (Index plane = 0; plane < x.samples * x.shape.channels; ++plane) {
    const T* from = x.values.data() + plane * x.shape.positions();
    for (Index i = 0; i < y_.shape.height; ++i) {
      for (Index j = 0; j < y_.shape.width; ++j, ++at) {
        Index best = 2 * i * width + 2 * j;
        for (const Index other : {best + 1, best + width, best + width + 1}) {
          if (!(from[other] <= from[best])) best = other;  // a NaN wins
        }
        taken_[at] = static_cast<std::int32_t>(best);
        y_.values[at] = from[best];
      }
    }
  }
  return y_;
}

template <class T>
const Tensor<T>& MaxPool<T>::backward(const Tensor<T>& dy, const Pass&, InputGradient want) {
  if (want == InputGradient::unwanted) return dx_;
  dx_.resize(dy.samples, x_shape_);
  std::fill(dx_.values.begin(), dx_.values.end(), T(0));
  std::size_t at = 0;
  for (Index plane = 0; plane < dy.samples * x_shape_.channels; ++plane) {
    T* to = dx_.values.data() + plane * x_shape_.positions();
    for (Index k = 0; k < y_.shape.positions(); ++k, ++at) to[taken_[at]] = dy.values[at];
  }
  return dx_;
}

template <class T>
const Tensor<T>& AveragePool<T>::forward(const Tensor<T>& x, const Pass&) {
  x_shape_ = x.shape;
  y_.resize(x.samples, pooled(x.shape));
  T* to = y_.values.data();
  for (Index plane = 0; plane < x.samples * x.shape.channels; ++plane) {
    const T* from = x.values.data() + plane * x.shape.positions();
    for (Index i = 0; i < y_.shape.height; ++i) {
      const T* above = from + 2 * i * x.shape.width;
      const T* below = above + x.shape.width;
      for (Index j = 0; j < 2 * y_.shape.width; j += 2) {
        *to++ = ((above[j] + above[j + 1]) + (below[j] + below[j + 1])) * T(0.25);
      }
    }
  }
  return y_;
}

template <class T>
const Tensor<T>& AveragePool<T>::backward(const Tensor<T>& dy, const Pass&, InputGradient want) {
  if (want == InputGradient::unwanted) return dx_;
  dx_.resize(dy.samples, x_shape_);
  std::fill(dx_.values.begin(), dx_.values.end(), T(0));
  const T* from = dy.values.data();
  for (Index plane = 0; plane < dy.samples * x_shape_.channels; ++plane) {
    T* to = dx_.values.data() + plane * x_shape_.positions();
    for (Index i = 0; i < dy.shape.height; ++i) {
      T* above = to + 2 * i * x_shape_.width;
      T* below = above + x_shape_.width;
      for (Index j = 0; j < 2 * dy.shape.width; j += 2) {
        const T share = *from++ * T(0.25);
        above[j] = above[j + 1] = below[j] = below[j + 1] = share;
      }
    }
  }
  return dx_;
}

template <class T>
const Tensor<T>& GlobalAveragePool<T>::forward(const Tensor<T>& x, const Pass&) {
  x_shape_ = x.shape;
  y_.resize(x.samples, {x.shape.channels, 1, 1});
  const T* plane = x.values.data();
  for (T& mean : y_.values) {
    const double sum = std::accumulate(plane, plane + x.shape.positions(), 0.0);
    mean = static_cast<T>(sum / static_cast<double>(x.shape.positions()));
    plane += x.shape.positions();
  }
  return y_;
}

template <class T>
const Tensor<T>& GlobalAveragePool<T>::backward(const Tensor<T>& dy, const Pass&, InputGradient want) {
  if (want == InputGradient::unwanted) return dx_;
  dx_.resize(dy.samples, x_shape_);
  T* plane = dx_.values.data();
  for (const T& d : dy.values)
    plane = std::fill_n(plane, x_shape_.positions(), d / static_cast<T>(x_shape_.positions()));
  return dx_;
}

template class Relu<float>;
template class Relu<double>;
template class MaxPool<float>;
template class MaxPool<double>;
template class AveragePool<float>;
template class AveragePool<double>;
template class GlobalAveragePool<float>;
template class GlobalAveragePool<double>;

}  // namespace syncbn::train
