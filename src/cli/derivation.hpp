// SPDX-License-Identifier: MIT
// Batch normalization as it is derived on paper, node by node, in double and on the whole batch: what `syncbn verify`
// holds against the layer. Nothing here is fast, and nothing is shared with the library.
#pragma once

#include <cstddef>
#include <vector>

#include "syncbn/tensor_view.hpp"

namespace syncbn::cli {

using Features = std::vector<double>;  ///< One number per feature, (D).

/// M rows of D features, row-major. A batch of any shape is one: every (sample, position) is a row.
struct Matrix {
  Index rows = 0;
  Index columns = 0;
  std::vector<double> values;

  Matrix() = default;
  Matrix(Index row_count, Index column_count)
      : rows(row_count), columns(column_count), values(static_cast<std::size_t>(row_count * column_count)) {}
  double& at(Index i, Index j) { return values[static_cast<std::size_t>(i * columns + j)]; }
  double at(Index i, Index j) const { return values[static_cast<std::size_t>(i * columns + j)]; }
};

struct Parameters {
  Features gamma, beta;
  double eps = 1e-5;
};

/// mean = sum(x)/M   var = sum((x-mean)^2)/M   xhat = (x-mean)/sqrt(var+eps)   y = gamma*xhat + beta
struct ForwardNodes {
  Features mean, var;
  Matrix xhat, y;
};
ForwardNodes forward(const Matrix& x, const Parameters& parameters);

struct Gradients {
  Matrix dx;
  Features dgamma, dbeta;
};

/// The nodes between dy and dx.
struct BackwardNodes {
  Matrix dxhat;
  Features dvar, dmu;
  Gradients gradients;
};

/// The chain rule, one node after the other:
///
///   dgamma = sum(dy*xhat)   dbeta = sum(dy)   dxhat = gamma*dy
///   dvar = sum(dxhat*(x-mean)) * (-1/2)*(var+eps)^(-3/2)
///   dmu  = -sum(dxhat)/sqrt(var+eps) + dvar*sum(-2(x-mean))/M
///   dx   = dxhat/sqrt(var+eps) + dvar*2(x-mean)/M + dmu/M
BackwardNodes backward_staged(const Matrix& x, const Matrix& dy, const ForwardNodes& nodes,
                              const Parameters& parameters);

/// The same, substituted and collected:
///
///   dx = ( M*dxhat - sum(dxhat) - xhat*sum(dxhat*xhat) ) / ( M*sqrt(var+eps) )
Gradients backward_closed(const Matrix& dy, const ForwardNodes& nodes, const Parameters& parameters);

/// The step for central differences in x: a power of two near cbrt(u)*sqrt(var+eps), where the truncation (h^2) and the
/// roundings (u/h) are about equal. With x of few bits, x + h and x - h are exact.
double difference_step(double var, double eps);

/// L = sum(dy*y) is linear in gamma and beta: no truncation, so their step is large.
inline constexpr double kLinearStep = 0.5;

/// (L(+h) - L(-h)) / 2h of L = sum(dy*y), in every x, gamma and beta.
Gradients central_differences(const Matrix& x, const Matrix& dy, const ForwardNodes& nodes,
                              const Parameters& parameters);

}  // namespace syncbn::cli
