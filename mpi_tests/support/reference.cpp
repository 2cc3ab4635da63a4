// SPDX-License-Identifier: MIT
#include "support/reference.hpp"

#include <cmath>

namespace syncbn::testing::reference {
namespace {

/// Sum of term(part, n, s) over all samples and positions.
template <class Term>
Real sum_over_batch(const Batch<Real>& batch, Term&& term) {
  Real sum = 0;
  for (std::size_t r = 0; r < batch.size(); ++r) {
    for (Index n = 0; n < batch[r].shape.samples; ++n) {
      for (Index s = 0; s < batch[r].shape.positions; ++s) sum += term(r, n, s);
    }
  }
  return sum;
}

Channels zeros(Index channels) { return Channels(static_cast<std::size_t>(channels), 0); }

std::size_t at(Index c) { return static_cast<std::size_t>(c); }

}  // namespace

Moments moments(const Batch<Real>& x, Index channels) {
  Moments result{0, zeros(channels), zeros(channels)};
  for (const Tensor<Real>& part : x) result.count += part.shape.samples * part.shape.positions;
  if (result.count == 0) return result;
  const Real count = static_cast<Real>(result.count);
  for (Index c = 0; c < channels; ++c) {
    const Real mean = sum_over_batch(x, [&](std::size_t r, Index n, Index s) { return x[r].at(n, c, s); }) / count;
    result.mean[at(c)] = mean;
    result.var[at(c)] = sum_over_batch(x,
                                       [&](std::size_t r, Index n, Index s) {
                                         const Real d = x[r].at(n, c, s) - mean;
                                         return d * d;
                                       }) /
                        count;
  }
  return result;
}

Forward normalize(const Batch<Real>& x, const Moments& moments, const Parameters& parameters) {
  Forward result{moments, zeros(static_cast<Index>(moments.mean.size())), {}, {}};
  for (std::size_t c = 0; c < result.invstd.size(); ++c) {
    const Real square = moments.var[c] + Real{parameters.eps};
    result.invstd[c] = square == 0 ? 0 : 1 / std::sqrt(square);
  }
  for (const Tensor<Real>& part : x) {
    Tensor<Real> xhat = zeros_like<Real>(part);
    Tensor<Real> y = zeros_like<Real>(part);
    for_each_element(part, [&](Index n, Index c, Index s) {
      xhat.at(n, c, s) = (part.at(n, c, s) - moments.mean[at(c)]) * result.invstd[at(c)];
      y.at(n, c, s) = parameters.gamma_at(c) * xhat.at(n, c, s) + parameters.beta_at(c);
    });
    result.xhat.push_back(std::move(xhat));
    result.y.push_back(std::move(y));
  }
  return result;
}

Forward forward(const Batch<Real>& x, Index channels, const Parameters& parameters) {
  return normalize(x, moments(x, channels), parameters);
}

Backward backward(const Batch<Real>& x, const Batch<Real>& dy, const Forward& forward, const Parameters& parameters) {
  const Index channels = static_cast<Index>(forward.invstd.size());
  Backward result{zeros(channels), zeros(channels), zeros(channels), zeros(channels), {}};
  for (const Tensor<Real>& part : x) result.dx.push_back(zeros_like<Real>(part));
  if (forward.moments.count == 0) return result;

  const Real count = static_cast<Real>(forward.moments.count);
  for (Index c = 0; c < channels; ++c) {
    const Real gamma = parameters.gamma_at(c);
    const Real mean = forward.moments.mean[at(c)];
    const Real invstd = forward.invstd[at(c)];
    const auto xmu = [&](std::size_t r, Index n, Index s) { return x[r].at(n, c, s) - mean; };
    const auto dxhat = [&](std::size_t r, Index n, Index s) { return gamma * dy[r].at(n, c, s); };

    result.dgamma[at(c)] = sum_over_batch(
        x, [&](std::size_t r, Index n, Index s) { return dy[r].at(n, c, s) * forward.xhat[r].at(n, c, s); });
    result.dbeta[at(c)] = sum_over_batch(x, [&](std::size_t r, Index n, Index s) { return dy[r].at(n, c, s); });

    const Real sum_dxhat = sum_over_batch(x, dxhat);
    const Real sum_dxhat_xmu =
        sum_over_batch(x, [&](std::size_t r, Index n, Index s) { return dxhat(r, n, s) * xmu(r, n, s); });
    const Real sum_minus_2_xmu = sum_over_batch(x, [&](std::size_t r, Index n, Index s) { return -2 * xmu(r, n, s); });
    const Real dvar = sum_dxhat_xmu * Real{-0.5L} * invstd * invstd * invstd;
    const Real dmu = -sum_dxhat * invstd + dvar * sum_minus_2_xmu / count;
    result.dvar[at(c)] = dvar;
    result.dmu[at(c)] = dmu;

    for (std::size_t r = 0; r < x.size(); ++r) {
      for (Index n = 0; n < x[r].shape.samples; ++n) {
        for (Index s = 0; s < x[r].shape.positions; ++s) {
          result.dx[r].at(n, c, s) = dxhat(r, n, s) * invstd + dvar * 2 * xmu(r, n, s) / count + dmu / count;
        }
      }
    }
  }
  return result;
}

Backward backward_frozen(const Batch<Real>& x, const Batch<Real>& dy, const Forward& forward,
                         const Parameters& parameters) {
  const Index channels = static_cast<Index>(forward.invstd.size());
  Backward result{zeros(channels), zeros(channels), zeros(channels), zeros(channels), {}};
  for (std::size_t r = 0; r < x.size(); ++r) {
    Tensor<Real> dx = zeros_like<Real>(x[r]);
    for_each_element(x[r], [&](Index n, Index c, Index s) {
      const Real g = dy[r].at(n, c, s);
      result.dgamma[at(c)] += g * forward.xhat[r].at(n, c, s);
      result.dbeta[at(c)] += g;
      dx.at(n, c, s) = parameters.gamma_at(c) * forward.invstd[at(c)] * g;
    });
    result.dx.push_back(std::move(dx));
  }
  return result;
}

LocalGradients local_gradients(const Tensor<Real>& xhat, const Tensor<Real>& dy) {
  LocalGradients result{zeros(xhat.shape.channels), zeros(xhat.shape.channels)};
  for_each_element(xhat, [&](Index n, Index c, Index s) {
    result.dgamma[at(c)] += dy.at(n, c, s) * xhat.at(n, c, s);
    result.dbeta[at(c)] += dy.at(n, c, s);
  });
  return result;
}

void Running::update(const Moments& batch, std::optional<double> momentum, bool unbiased) {
  if (batch.count == 0) return;
  ++batches;
  const Real m = momentum ? Real{*momentum} : 1 / static_cast<Real>(batches);
  for (std::size_t c = 0; c < mean.size(); ++c) {
    mean[c] = (1 - m) * mean[c] + m * batch.mean[c];
    if (unbiased && batch.count == 1) continue;
    const Real scale = unbiased ? static_cast<Real>(batch.count) / static_cast<Real>(batch.count - 1) : Real{1};
    var[c] = (1 - m) * var[c] + m * batch.var[c] * scale;
  }
}

}  // namespace syncbn::testing::reference
