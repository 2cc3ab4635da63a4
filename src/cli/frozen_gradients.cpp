// SPDX-License-Identifier: MIT
#include "frozen_gradients.hpp"

#include <cmath>
#include <optional>
#include <vector>

#include "agree.hpp"
#include "element_type.hpp"

namespace syncbn::cli {
namespace {

/// hi + lo of twice the precision of double: the sum of the terms of one sample.
struct SampleSum {
  double hi = 0.0;
  double lo = 0.0;

  /// Knuth's two-sum: what `hi` loses goes to `lo`.
  void add(double term) {
    const double sum = hi + term;
    const double added = sum - hi;
    lo += (hi - (sum - added)) + (term - added);
    hi = sum;
  }

  void add_product(double a, double b) {
    const double product = a * b;
    add(product);
    lo += std::fma(a, b, -product);
  }

  /// a*b for a double a and b = x - mean, which need not be a double.
  void add_product_with_difference(double a, double x, double mean) {
    SampleSum difference{x};
    difference.add(-mean);
    add_product(a, difference.hi);
    lo += a * difference.lo;
  }

  /// After an overflow `hi` says all there is to say.
  double finite_lo() const { return std::isfinite(lo) ? lo : 0.0; }
};

/// Sums of (dy*(x-mean)) and, behind them, of dy: 2 * channels. The leading and the trailing halves of the samples'
/// contributions have sums of their own, so that each takes one term a sample.
class ChannelSums {
 public:
  ChannelSums(Index channels, DataType type) : leading_(2 * channels, precision_of(type)), trailing_(leading_) {
    hi_.resize(static_cast<std::size_t>(2 * channels));
    lo_ = hi_;
  }

  template <class T>
  void add_samples(const TensorShape& shape, const T* x, const T* dy, const double* mean) {
    const bool is_last = shape.layout == Layout::channels_last;
    const Index channel_stride = is_last ? 1 : shape.positions;
    const Index position_stride = is_last ? shape.channels : 1;
    for (Index n = 0; n < shape.samples; ++n) {
      for (Index c = 0; c < shape.channels; ++c) {
        const Index first = n * shape.channels * shape.positions + c * channel_stride;
        SampleSum dy_xmu, sum_dy;
        for (Index s = 0; s < shape.positions; ++s) {
          const auto d = static_cast<double>(dy[first + s * position_stride]);
          dy_xmu.add_product_with_difference(d, static_cast<double>(x[first + s * position_stride]), mean[c]);
          sum_dy.add(d);
        }
        set(c, dy_xmu);
        set(shape.channels + c, sum_dy);
      }
      leading_.add_array(hi_.data());
      trailing_.add_array(lo_.data());
    }
  }

  void all_reduce(const Communicator& communicator) {
    leading_.all_reduce(communicator);
    trailing_.all_reduce(communicator);
  }

  double operator[](Index i) const { return leading_.value(i) + trailing_.value(i); }

 private:
  static ReproducibleSum::Precision precision_of(DataType type) {
    return type == DataType::f64 ? ReproducibleSum::Precision::bits146 : ReproducibleSum::Precision::bits72;
  }

  void set(Index i, const SampleSum& sum) {
    hi_[static_cast<std::size_t>(i)] = sum.hi;
    lo_[static_cast<std::size_t>(i)] = sum.finite_lo();
  }

  ReproducibleSum leading_, trailing_;
  std::vector<double> hi_, lo_;  // of one sample
};

}  // namespace

BatchNormGradients frozen_gradients(const BatchNormCache& cache, ConstTensorView dy, DataType type,
                                    const Communicator& communicator, MPI_Comm comm) {
  const auto channels = static_cast<Index>(cache.mean.size());
  std::optional<ChannelSums> sums;
  together(comm, [&] {
    sums.emplace(channels, dy.type);
    with_element_type(dy.type, [&](auto element) {
      using T = decltype(element);
      sums->add_samples(dy.shape, static_cast<const T*>(cache.x.data), static_cast<const T*>(dy.data),
                        cache.mean.data());
    });
  });
  sums->all_reduce(communicator);

  BatchNormGradients gradients;
  gradients.dgamma.assign(type, channels, 0.0);
  gradients.dbeta.assign(type, channels, 0.0);
  for (Index c = 0; c < channels; ++c) {
    gradients.dgamma.set(c, cache.invstd[static_cast<std::size_t>(c)] * (*sums)[c]);
    gradients.dbeta.set(c, (*sums)[channels + c]);
  }
  return gradients;
}

}  // namespace syncbn::cli
