// SPDX-License-Identifier: MIT
// The oracle: batch normalization written down from its formulas, in extended precision, on the whole batch in one
// process. Slow and plain on purpose; it shares nothing with the library.
#pragma once

#include <optional>
#include <vector>

#include "support/tensor.hpp"

namespace syncbn::testing::reference {

using Channels = std::vector<Real>;  ///< (C)

/// Parameters; empty gamma and beta mean 1 and 0.
struct Parameters {
  std::vector<double> gamma;
  std::vector<double> beta;
  double eps = 1e-5;

  Real gamma_at(Index c) const { return gamma.empty() ? Real{1} : Real{gamma[static_cast<std::size_t>(c)]}; }
  Real beta_at(Index c) const { return beta.empty() ? Real{0} : Real{beta[static_cast<std::size_t>(c)]}; }
};

/// mean = sum(x)/M, var = sum((x-mean)^2)/M in two passes. Zeros if M is 0.
struct Moments {
  Index count = 0;
  Channels mean;
  Channels var;
};
Moments moments(const Batch<Real>& x, Index channels);

/// xhat = (x-mean)/sqrt(var+eps), y = gamma*xhat + beta. Where var + eps = 0: invstd = 0, so xhat = 0.
struct Forward {
  Moments moments;
  Channels invstd;
  Batch<Real> xhat;
  Batch<Real> y;
};
Forward forward(const Batch<Real>& x, Index channels, const Parameters& parameters);

/// The same with given statistics (eval, frozen).
Forward normalize(const Batch<Real>& x, const Moments& moments, const Parameters& parameters);

/// The chain rule through the intermediate nodes:
///
///   dgamma = sum(dy*xhat)   dbeta = sum(dy)   dxhat = gamma*dy
///   dvar = sum(dxhat*(x-mean)) * (-1/2)*(var+eps)^(-3/2)
///   dmu  = -sum(dxhat)/sqrt(var+eps) + dvar * sum(-2(x-mean))/M
///   dx   = dxhat/sqrt(var+eps) + dvar*2(x-mean)/M + dmu/M
struct Backward {
  Channels dgamma;
  Channels dbeta;
  Channels dvar;
  Channels dmu;
  Batch<Real> dx;
};
Backward backward(const Batch<Real>& x, const Batch<Real>& dy, const Forward& forward, const Parameters& parameters);

/// Backward of normalize(): dx = dxhat*invstd, as the statistics are constants.
Backward backward_frozen(const Batch<Real>& x, const Batch<Real>& dy, const Forward& forward,
                         const Parameters& parameters);

/// sum(dy*xhat) and sum(dy) over one rank's part of the batch.
struct LocalGradients {
  Channels dgamma;
  Channels dbeta;
};
LocalGradients local_gradients(const Tensor<Real>& xhat, const Tensor<Real>& dy);

/// Running statistics, as PyTorch keeps them.
struct Running {
  Channels mean;
  Channels var;
  Index batches = 0;

  explicit Running(Index channels)
      : mean(static_cast<std::size_t>(channels), 0), var(static_cast<std::size_t>(channels), 1) {}

  /// r = (1-m)*r + m*new, m = momentum, or 1/(batches so far) if there is none. var enters times M/(M-1) if `unbiased`;
  /// with M = 1 no unbiased estimate exists and running_var stays. A batch without samples changes nothing.
  void update(const Moments& batch, std::optional<double> momentum, bool unbiased);
};

}  // namespace syncbn::testing::reference
