// SPDX-License-Identifier: MIT
#include "convolution.hpp"

#include <algorithm>

#include "gemm.hpp"
#include "initial_bound.hpp"

namespace syncbn::train {

namespace {

/// The outputs along one axis, begin .. end-1, whose input, `stride` times their number plus `shift`, is in the image.
struct Inside {
  Index begin;
  Index end;
};

Inside inside(Index input, Index output, Index stride, Index shift) {
  const Index begin = shift < 0 ? (stride - 1 - shift) / stride : 0;
  const Index end = shift < input ? std::min(output, (input - 1 - shift) / stride + 1) : 0;
  return {begin, end};
}

/// Goes through the pixels that a sample's columns are made of, tap by tap and row by row: run(x, column, count) stands
/// for pixels x, x + stride, ... of the image and elements column, column + 1, ... of the columns.
template <class Run>
void for_each_run(const ImageShape& input, const ImageShape& output, const Window& window, const Run& run) {
  const Index reach = window.side / 2;
  Index tap = 0;
  for (Index c = 0; c < input.channels; ++c) {
    for (Index a = -reach; a <= reach; ++a) {
      const Inside rows = inside(input.height, output.height, window.stride, a);
      for (Index b = -reach; b <= reach; ++b, ++tap) {
        const Inside columns = inside(input.width, output.width, window.stride, b);
        if (columns.begin >= columns.end) continue;
        for (Index i = rows.begin; i < rows.end; ++i) {
          const Index x_row = (c * input.height + i * window.stride + a) * input.width;
          const Index y_row = (tap * output.height + i) * output.width;
          run(x_row + columns.begin * window.stride + b, y_row + columns.begin, columns.end - columns.begin);
        }
      }
    }
  }
}

}  // namespace

template <class T>
Convolution<T>::Convolution(std::string name, ImageShape input, Index outputs, Window window)
    : input_(input),
      window_(window),
      output_{outputs, (input.height - 1) / window.stride + 1, (input.width - 1) / window.stride + 1},
      weight_values_(static_cast<std::size_t>(outputs * taps())),
      columns_(static_cast<std::size_t>(taps() * output_.positions())),
      sample_y_(static_cast<std::size_t>(output_.size())) {
  weight_.name = name + ".weight";
  weight_.values = weight_values_.data();
  weight_.size = outputs * taps();
  weight_.initial_bound = relu_bound(taps());
  weight_.decays = true;
}

template <class T>
void Convolution<T>::unfold(const T* image) {
  std::fill(columns_.begin(), columns_.end(), T(0));
  const Index stride = window_.stride;
  for_each_run(input_, output_, window_, [&](Index x, Index column, Index count) {
    const T* from = image + x;
    T* to = columns_.data() + column;
    if (stride == 1) {
      std::copy_n(from, count, to);
    } else {
      for (Index j = 0; j < count; ++j) to[j] = from[j * stride];
    }
  });
}

template <class T>
void Convolution<T>::fold(T* image) const {
  std::fill_n(image, input_.size(), T(0));
  const Index stride = window_.stride;
  for_each_run(input_, output_, window_, [&](Index x, Index column, Index count) {
    const T* from = columns_.data() + column;
    T* to = image + x;
    for (Index j = 0; j < count; ++j) to[j * stride] += from[j];
  });
}

template <class T>
const Tensor<T>& Convolution<T>::forward(const Tensor<T>& x, const Pass&) {
  x_ = &x;
  y_.resize(x.samples, output_);
  const ConstMatrix<T> weight{weight_values_.data(), output_.channels, taps()};
  const ConstMatrix<T> columns{columns_.data(), taps(), output_.positions()};
  for (Index n = 0; n < x.samples; ++n) {
    unfold(x.sample(n));
    multiply(weight, columns, sample_y_.data());
    std::copy(sample_y_.begin(), sample_y_.end(), y_.sample(n));
  }
  return y_;
}

template <class T>
const Tensor<T>& Convolution<T>::backward(const Tensor<T>& dy, const Pass& pass, InputGradient want) {
  weight_.set_slots(static_cast<Index>(pass.units.size()));
  if (want == InputGradient::wanted) dx_.resize(x_->samples, x_->shape);
  const ConstMatrix<T> weight{weight_values_.data(), output_.channels, taps()};
  const ConstMatrix<T> columns{columns_.data(), taps(), output_.positions()};
  const ConstMatrix<T> sample_dy{sample_y_.data(), output_.channels, output_.positions()};
  for (Index u = 0; u < weight_.slots; ++u) {
    const SampleRange& unit = pass.units[static_cast<std::size_t>(u)];
    std::fill_n(weight_.gradient(u), weight_.size, T(0));
    for (Index n = unit.first; n < unit.first + unit.count; ++n) {
      unfold(x_->sample(n));
      std::copy_n(dy.sample(n), sample_y_.size(), sample_y_.data());
      multiply_nt(sample_dy, columns, weight_.gradient(u), Accumulate::yes);
      if (want == InputGradient::wanted) {
        multiply_tn(weight, sample_dy, columns_.data());
        fold(dx_.sample(n));
      }
    }
  }
  return dx_;
}

template class Convolution<float>;
template class Convolution<double>;

}  // namespace syncbn::train
