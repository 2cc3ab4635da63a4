// SPDX-License-Identifier: MIT
#include "convolution.hpp"

#include <algorithm>

#include "gemm.hpp"
#include "initial_bound.hpp"

namespace syncbn::train {

namespace {

/// The outputs along one axis, begin .. end-1, whose input at offset `shift` (-1, 0, 1) is inside the image.
struct Inside {
  Index begin;
  Index end;
};

Inside inside(Index extent, Index shift) { return {std::max<Index>(0, -shift), std::min(extent, extent - shift)}; }

}  // namespace

template <class T>
Convolution<T>::Convolution(std::string name, ImageShape input, Index outputs)
    : input_(input),
      outputs_(outputs),
      weight_values_(static_cast<std::size_t>(outputs * taps())),
      columns_(static_cast<std::size_t>(taps() * input.positions())),
      sample_y_(static_cast<std::size_t>(outputs * input.positions())) {
  weight_.name = name + ".weight";
  weight_.values = weight_values_.data();
  weight_.size = outputs * taps();
  weight_.initial_bound = relu_bound(taps());
  weight_.decays = true;
}

template <class T>
void Convolution<T>::unfold(const T* image) {
  T* row = columns_.data();
  for (Index c = 0; c < input_.channels; ++c) {
    const T* plane = image + c * input_.positions();
    for (Index a = -1; a <= 1; ++a) {
      for (Index b = -1; b <= 1; ++b) {
        const Inside rows = inside(input_.height, a);
        const Inside columns = inside(input_.width, b);
        std::fill_n(row, input_.positions(), T(0));
        for (Index i = rows.begin; i < rows.end; ++i) {
          for (Index j = columns.begin; j < columns.end; ++j) {
            row[i * input_.width + j] = plane[(i + a) * input_.width + j + b];
          }
        }
        row += input_.positions();
      }
    }
  }
}

template <class T>
void Convolution<T>::fold(T* image) const {
  std::fill_n(image, input_.size(), T(0));
  const T* row = columns_.data();
  for (Index c = 0; c < input_.channels; ++c) {
    T* plane = image + c * input_.positions();
    for (Index a = -1; a <= 1; ++a) {
      for (Index b = -1; b <= 1; ++b) {
        const Inside rows = inside(input_.height, a);
        const Inside columns = inside(input_.width, b);
        for (Index i = rows.begin; i < rows.end; ++i) {
          for (Index j = columns.begin; j < columns.end; ++j) {
            plane[(i + a) * input_.width + j + b] += row[i * input_.width + j];
          }
        }
        row += input_.positions();
      }
    }
  }
}

template <class T>
const Tensor<T>& Convolution<T>::forward(const Tensor<T>& x, const Pass&) {
  x_ = &x;
  y_.resize(x.samples, output_shape());
  const ConstMatrix<T> weight{weight_values_.data(), outputs_, taps()};
  const ConstMatrix<T> columns{columns_.data(), taps(), input_.positions()};
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
  const ConstMatrix<T> weight{weight_values_.data(), outputs_, taps()};
  const ConstMatrix<T> columns{columns_.data(), taps(), input_.positions()};
  const ConstMatrix<T> sample_dy{sample_y_.data(), outputs_, input_.positions()};
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
