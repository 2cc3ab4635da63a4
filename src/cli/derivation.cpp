// SPDX-License-Identifier: MIT
#include "derivation.hpp"

#include <cmath>
#include <utility>

namespace syncbn::cli {
namespace {

std::size_t at(Index j) { return static_cast<std::size_t>(j); }

/// Sum of term(i) over the rows.
template <class Term>
double sum(Index rows, Term term) {
  double total = 0.0;
  for (Index i = 0; i < rows; ++i) total += term(i);
  return total;
}

/// One feature, for the differences: they move nothing else.
struct Column {
  Matrix x, dy;
  Parameters parameters;

  Column(const Matrix& whole_x, const Matrix& whole_dy, const Parameters& all, Index j)
      : x(whole_x.rows, 1), dy(whole_x.rows, 1), parameters{{all.gamma[at(j)]}, {all.beta[at(j)]}, all.eps} {
    for (Index i = 0; i < x.rows; ++i) {
      x.at(i, 0) = whole_x.at(i, j);
      dy.at(i, 0) = whole_dy.at(i, j);
    }
  }

  double loss() const {
    const ForwardNodes nodes = forward(x, parameters);
    return sum(x.rows, [&](Index i) { return dy.at(i, 0) * nodes.y.at(i, 0); });
  }

  double difference(double& moved, double step) const {
    const double middle = moved;
    moved = middle + step;
    const double above = loss();
    moved = middle - step;
    const double below = loss();
    moved = middle;
    return (above - below) / (2.0 * step);
  }
};

}  // namespace

ForwardNodes forward(const Matrix& x, const Parameters& parameters) {
  const auto [M, D] = std::pair(x.rows, x.columns);
  const double count = static_cast<double>(M);
  ForwardNodes nodes{Features(at(D)), Features(at(D)), Matrix(M, D), Matrix(M, D)};
  for (Index j = 0; j < D; ++j) {
    const double mean = sum(M, [&](Index i) { return x.at(i, j); }) / count;
    const double var = sum(M, [&](Index i) { return (x.at(i, j) - mean) * (x.at(i, j) - mean); }) / count;
    const double std = std::sqrt(var + parameters.eps);
    nodes.mean[at(j)] = mean;
    nodes.var[at(j)] = var;
    for (Index i = 0; i < M; ++i) {
      nodes.xhat.at(i, j) = (x.at(i, j) - mean) / std;
      nodes.y.at(i, j) = parameters.gamma[at(j)] * nodes.xhat.at(i, j) + parameters.beta[at(j)];
    }
  }
  return nodes;
}

BackwardNodes backward_staged(const Matrix& x, const Matrix& dy, const ForwardNodes& nodes,
                              const Parameters& parameters) {
  const auto [M, D] = std::pair(x.rows, x.columns);
  const double count = static_cast<double>(M);
  BackwardNodes back{Matrix(M, D), Features(at(D)), Features(at(D)), {Matrix(M, D), Features(at(D)), Features(at(D))}};
  for (Index j = 0; j < D; ++j) {
    const double mean = nodes.mean[at(j)];
    const double std = std::sqrt(nodes.var[at(j)] + parameters.eps);

    back.gradients.dgamma[at(j)] = sum(M, [&](Index i) { return dy.at(i, j) * nodes.xhat.at(i, j); });
    back.gradients.dbeta[at(j)] = sum(M, [&](Index i) { return dy.at(i, j); });
    for (Index i = 0; i < M; ++i) back.dxhat.at(i, j) = parameters.gamma[at(j)] * dy.at(i, j);

    const double dvar =
        sum(M, [&](Index i) { return back.dxhat.at(i, j) * (x.at(i, j) - mean); }) * -0.5 / (std * std * std);
    const double dmu = -sum(M, [&](Index i) { return back.dxhat.at(i, j); }) / std +
                       dvar * sum(M, [&](Index i) { return -2.0 * (x.at(i, j) - mean); }) / count;
    back.dvar[at(j)] = dvar;
    back.dmu[at(j)] = dmu;
    for (Index i = 0; i < M; ++i) {
      back.gradients.dx.at(i, j) = back.dxhat.at(i, j) / std + dvar * 2.0 * (x.at(i, j) - mean) / count + dmu / count;
    }
  }
  return back;
}

Gradients backward_closed(const Matrix& dy, const ForwardNodes& nodes, const Parameters& parameters) {
  const auto [M, D] = std::pair(dy.rows, dy.columns);
  const double count = static_cast<double>(M);
  Gradients gradients{Matrix(M, D), Features(at(D)), Features(at(D))};
  for (Index j = 0; j < D; ++j) {
    const double gamma = parameters.gamma[at(j)];
    const double std = std::sqrt(nodes.var[at(j)] + parameters.eps);
    const double sum_dxhat = sum(M, [&](Index i) { return gamma * dy.at(i, j); });
    const double sum_dxhat_xhat = sum(M, [&](Index i) { return gamma * dy.at(i, j) * nodes.xhat.at(i, j); });
    for (Index i = 0; i < M; ++i) {
      gradients.dx.at(i, j) =
          (count * gamma * dy.at(i, j) - sum_dxhat - nodes.xhat.at(i, j) * sum_dxhat_xhat) / (count * std);
    }
    gradients.dgamma[at(j)] = sum(M, [&](Index i) { return dy.at(i, j) * nodes.xhat.at(i, j); });
    gradients.dbeta[at(j)] = sum(M, [&](Index i) { return dy.at(i, j); });
  }
  return gradients;
}

double difference_step(double var, double eps) {
  constexpr double kCubeRootOfU = 4.8e-6;  // (2^-53)^(1/3)
  return std::exp2(std::round(std::log2(kCubeRootOfU * std::sqrt(var + eps))));
}

Gradients central_differences(const Matrix& x, const Matrix& dy, const ForwardNodes& nodes,
                              const Parameters& parameters) {
  Gradients slopes{Matrix(x.rows, x.columns), Features(at(x.columns)), Features(at(x.columns))};
  for (Index j = 0; j < x.columns; ++j) {
    Column column(x, dy, parameters, j);
    const double step = difference_step(nodes.var[at(j)], parameters.eps);
    for (Index i = 0; i < x.rows; ++i) slopes.dx.at(i, j) = column.difference(column.x.at(i, 0), step);
    slopes.dgamma[at(j)] = column.difference(column.parameters.gamma[0], kLinearStep);
    slopes.dbeta[at(j)] = column.difference(column.parameters.beta[0], kLinearStep);
  }
  return slopes;
}

}  // namespace syncbn::cli
