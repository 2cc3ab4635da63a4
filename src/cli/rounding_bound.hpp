// SPDX-License-Identifier: MIT
// How far two correct computations of batch normalization may be apart.
#pragma once

#include "derivation.hpp"

namespace syncbn::cli {

/// Largest relative error of rounding to nearest.
inline constexpr double kUnitOfF32 = 0x1p-24;
inline constexpr double kUnitOfF64 = 0x1p-53;

/// Bounds for one feature of one batch, for any computation in double that sums in any order and grouping (the formulas
/// of derivation.hpp, the layer's merged moments), whose result is rounded once more to a type of unit v. They are
/// normwise and to first order in u = 2^-53, for eps > 0. With M values, P ranks, n = M + P + 10 (more operations than
/// any number goes through), s = sqrt(var+eps), R = max|x-mean|, X = R/s, K = 1 + |mean|/s + X, l = 1 + log2(n):
///
/// mean.  A sum of M values, or base + delta*w over merged groups with |delta| <= 2R: at most 6 roundings of |mean|+R
/// an
///        operation, so |error|/s <= 6nuK.
/// var.   Centred sums of squares about the mean or about a value within 2R of it: 8nu(var + R^2). The error e of the
/// group
///        means enters as 2*delta*e*w; in any tree of merges sum(w) <= M*l, and Cauchy-Schwarz gives at most
///        4*e*sigma*l. Together |error|/s^2 <= nu(8(1+X^2) + 24*K*l); half of it, and 3u, is the relative error of 1/s:
///          rho = nu(4(1+X^2) + 12*K*l) + 3u
/// xhat.  e_xhat = 6nuK + X*(rho + 5u)
/// y.     |gamma|*e_xhat + u(|y|+|beta|) + v|y|
///
/// Backward, with the means A = sum|dy|/M, B = sum|dy*xhat|/M, m2 = sum(dy*xhat)/M:
///   mean(dy)       n*u*A
///   mean(dy*xhat)  n*u*B + A*e_xhat
///   dx             |gamma|/s * ( n*u*A + 2|m2|*e_xhat + X*(n*u*B + A*e_xhat) + 10u(|dy| + A + X*B) ) + |dx|*(rho + 5u)
///   + v|dx|
/// where the 2 before |m2| pays for the staged form's sum(-2(x-mean)), which is not quite zero. dgamma and dbeta are M
/// times the two means.
class RoundingBound {
 public:
  RoundingBound(const Matrix& x, const Matrix& dy, const ForwardNodes& nodes, const Parameters& parameters,
                Index feature, int ranks);

  double y(double y_value, double unit) const;
  double dx(double dy_value, double dx_value, double unit) const;
  double dgamma(double value, double unit) const;
  double dbeta(double value, double unit) const;

  /// A central difference with step h, taken of losses that are computed in double, against the exact derivative:
  ///
  ///   h^2/6 * max|L'''|  +  e_L/h,     e_L = sum|dy|*(the bound of y) + n*u*sum|dy*y|
  ///
  /// Moving x_i by t moves the centred values along z_j(t) = z_j + (delta_ij - 1/M)t and var + eps along a parabola
  /// q(t) with |q'| = 2|z_i + (1-1/M)t|/M and q'' = 2(M-1)/M^2 = b. With a = |q'|/s, and as z'' = q''' = 0, xhat_j =
  /// z_j*q^(-1/2) has
  ///
  ///   |xhat_j'''| <= s^-3 * ( |xhat_j|*(15/8 a^3 + 9/4 a*b) + 3|z_j'|*(3/4 a^2 + b/2) ),   |L'''| <=
  ///   |gamma|*sum|dy_j*xhat_j'''|
  double difference_in_x(double xmu, double dy_value, double step) const;
  /// No truncation: L is linear in gamma and beta. Moving them by h grows y, hence e_L, by h(X+1) at most.
  double difference_in_parameter(double step) const;

 private:
  double gamma_, s_, count_, n_;
  double largest_xhat_ = 0.0;  // X
  double rho_, e_xhat_;
  double mean_dy_size_ = 0.0;       // A
  double mean_product_size_ = 0.0;  // B
  double mean_product_ = 0.0;       // m2
  double loss_error_ = 0.0;         // e_L
};

}  // namespace syncbn::cli
