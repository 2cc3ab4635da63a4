// SPDX-License-Identifier: MIT
#include "support/tolerance.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace syncbn::testing::tolerance {
namespace {

constexpr Real kU = kUnit<double>;

/// Products of two errors: below 1 % of the first-order terms as long as each error is below 1 %.
constexpr Real kSlack = 1.01L;

/// What element passes in float add to the roundings in double; nothing where they are in double.
template <class T>
constexpr Real kUnitOfPass = kIsHalf<T> ? kUnit<float> : 0;

/// The mean as two floats is off by 2^-49 of itself = 16u, and e_mean is at least 2u of it: at most 8 e_mean more. (A given
/// mean is a float.)
template <class T>
constexpr Real kMeanErrors = kIsHalf<T> ? 9 : 1;

/// S and L of the derivations.
struct Path {
  Real positions = 0;
  Real merges = 0;
};

Path path_of(const Batch<Real>& x, Index count) {
  Path path;
  path.merges = static_cast<Real>(x.size()) + static_cast<Real>(count) * 0x1p-11L;
  for (const Tensor<Real>& part : x) {
    path.positions = std::max(path.positions, static_cast<Real>(part.shape.positions));
    path.merges += static_cast<Real>(part.shape.samples);
  }
  return path;
}

}  // namespace

std::vector<ChannelBound> statistics(const Batch<Real>& x, const reference::Forward& forward, double eps) {
  const reference::Moments& moments = forward.moments;
  const auto [positions, merges] = path_of(x, moments.count);
  std::vector<Real> reach(moments.mean.size(), 0);
  for (const Tensor<Real>& part : x) {
    for_each_element(part, [&](Index n, Index c, Index s) {
      Real& r = reach[static_cast<std::size_t>(c)];
      r = std::max(r, std::abs(part.at(n, c, s) - moments.mean[static_cast<std::size_t>(c)]));
    });
  }

  std::vector<ChannelBound> bounds;
  const Real levels = 1 + std::log2(merges);
  for (std::size_t c = 0; c < reach.size(); ++c) {
    const Real mean = std::abs(moments.mean[c]);
    const Real var = moments.var[c];
    const Real e_mean = kU * ((merges + 1) * (mean + 4 * reach[c]) + 2 * (positions + 1) * reach[c]);
    const Real of_samples = positions > 1 ? (3 * positions + 6) * (2 * var + 2 * reach[c] * reach[c]) : 0;
    const Real e_var = kU * (of_samples + (2 * merges + 7) * var) + 4 * e_mean * std::sqrt(var * levels) +
                       4 * e_mean * e_mean * levels;
    const Real square = var + Real{eps};
    const Real least = square - kSlack * e_var;
    const Real e_invstd = least > 0 ? std::sqrt(square / least) - 1 + 3 * kU : std::numeric_limits<Real>::infinity();
    bounds.push_back({kSlack * e_mean, kSlack * e_var, e_invstd});
  }
  return bounds;
}

std::vector<ChannelBound> given_statistics(Index channels) {
  return std::vector<ChannelBound>(static_cast<std::size_t>(channels), ChannelBound{0, 0, 3 * kU});
}

template <class T>
Real y(const ChannelBound& bound, Real gamma, Real invstd, Real xhat, Real y) {
  const Real of_mean = std::abs(gamma) * invstd * kMeanErrors<T> * bound.mean;
  const Real of_product = std::abs(gamma * xhat) * (bound.invstd + 5 * kU + 3 * kUnitOfPass<T>);
  return kSlack * (of_mean + of_product + kU * std::abs(y) + rounding<T>(y));
}

std::vector<GradientBound> gradient_sums(const Batch<Real>& x, const Batch<Real>& dy, const reference::Forward& forward,
                                         const std::vector<ChannelBound>& bounds) {
  const reference::Moments& moments = forward.moments;
  const auto [positions, merges] = path_of(x, moments.count);
  const std::size_t channels = bounds.size();
  std::vector<Real> sum(channels), sum_of_sizes(channels), product(channels), product_of_sizes(channels);
  for (std::size_t r = 0; r < x.size(); ++r) {
    for_each_element(x[r], [&](Index n, Index channel, Index s) {
      const auto c = static_cast<std::size_t>(channel);
      const Real g = dy[r].at(n, channel, s);
      const Real xmu = x[r].at(n, channel, s) - moments.mean[c];
      sum[c] += g;
      sum_of_sizes[c] += std::abs(g);
      product[c] += g * xmu;
      product_of_sizes[c] += std::abs(g * xmu);
    });
  }
  std::vector<GradientBound> result;
  for (std::size_t c = 0; c < channels; ++c) {
    GradientBound g{};
    g.sum_dy = kSlack * kU * (positions + merges) * sum_of_sizes[c];
    g.sum_dy_xmu = kSlack * (kU * (positions + merges + 3) * product_of_sizes[c] + bounds[c].mean * std::abs(sum[c]));
    if (moments.count > 0) {
      const Real per_value = forward.invstd[c] * forward.invstd[c] / static_cast<Real>(moments.count);
      g.mean_dy = sum[c] / static_cast<Real>(moments.count);
      g.slope_value = per_value * product[c];
      g.slope = per_value * g.sum_dy_xmu + std::abs(g.slope_value) * (2 * bounds[c].invstd + 4 * kU);
    }
    result.push_back(g);
  }
  return result;
}

template <class T>
Real dgamma(const ChannelBound& bound, const GradientBound& gradient, Real invstd, Real dgamma) {
  return kSlack *
         (invstd * gradient.sum_dy_xmu + std::abs(dgamma) * (bound.invstd + 2 * kU) + rounding<ParameterOf<T>>(dgamma));
}

template <class T>
Real dbeta(const GradientBound& gradient, Real dbeta) {
  return kSlack * (gradient.sum_dy + rounding<ParameterOf<T>>(dbeta));
}

template <class T>
Real dx(const ChannelBound& bound, const GradientBound& gradient, const InputGradientTerms& t) {
  const Real sizes = std::abs(t.dy) + std::abs(gradient.mean_dy) + std::abs(t.xmu * gradient.slope_value);
  const Real inside = gradient.sum_dy / static_cast<Real>(t.count) + std::abs(t.xmu) * gradient.slope +
                      std::abs(gradient.slope_value) * kMeanErrors<T> * bound.mean +
                      (3 * kU + 4 * kUnitOfPass<T>)*sizes;
  return kSlack *
         (std::abs(t.gamma) * t.invstd * inside + std::abs(t.dx) * (bound.invstd + 2 * kU) + rounding<T>(t.dx));
}

template <class T>
Real dx_frozen(const ChannelBound& bound, Real dx) {
  return kSlack * (std::abs(dx) * (bound.invstd + 3 * kU + kUnitOfPass<T>)+rounding<T>(dx));
}

template <class T>
Real running(Real before, Real momentum, Real fresh, Real old_value, Real new_value, Real result) {
  const Real sizes = std::abs((1 - momentum) * old_value) + std::abs(momentum * new_value);
  return kSlack * ((1 - momentum) * before + momentum * fresh + 4 * kU * sizes + rounding<ParameterOf<T>>(result));
}

Real central_difference(const DifferenceTerms& t) {
  const Real count = static_cast<Real>(t.count);
  const Real h = t.step;
  const Real reach = std::abs(t.xmu) + h;
  const Real s = std::sqrt(t.var_plus_eps - 2 * reach * h / count);  // at its least in the interval
  const Real a = 2 * reach / (count * s);
  const Real b = 2 * (count - 1) / (count * count);
  const Real sum_slopes = std::abs(t.weight) + t.sum_weights / count;  // sum|w_j * z_j'|
  const Real sum_weighted_xhat = (t.sum_weighted_xmu + h * sum_slopes) / s;
  const Real third =
      std::abs(t.gamma) / (s * s * s) *
      (sum_weighted_xhat * (15 * a * a * a / 8 + 9 * a * b / 4) + 3 * sum_slopes * (3 * a * a / 4 + b / 2));
  return h * h / 6 * third;
}

#define SYNCBN_INSTANTIATE(T)                                                                \
  template Real y<T>(const ChannelBound&, Real, Real, Real, Real);                           \
  template Real dgamma<T>(const ChannelBound&, const GradientBound&, Real, Real);            \
  template Real dbeta<T>(const GradientBound&, Real);                                        \
  template Real dx<T>(const ChannelBound&, const GradientBound&, const InputGradientTerms&); \
  template Real dx_frozen<T>(const ChannelBound&, Real);                                     \
  template Real running<T>(Real, Real, Real, Real, Real, Real);
SYNCBN_INSTANTIATE(float)
SYNCBN_INSTANTIATE(double)
SYNCBN_INSTANTIATE(bfloat16)
SYNCBN_INSTANTIATE(float16)
#undef SYNCBN_INSTANTIATE

}  // namespace syncbn::testing::tolerance
