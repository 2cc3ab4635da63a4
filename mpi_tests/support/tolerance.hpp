// SPDX-License-Identifier: MIT
// How far the layer may be from the oracle: rounding-error bounds of the layer's algorithm for the data at hand.
#pragma once

#include <vector>

#include "support/half_limits.hpp"
#include "support/reference.hpp"
#include "syncbn/options.hpp"

namespace syncbn::testing::tolerance {

/// Unit roundoff: the largest relative error of rounding to nearest.
template <class T>
inline constexpr Real kUnit = 0x1p-53L;
template <>
inline constexpr Real kUnit<float> = 0x1p-24L;
template <>
inline constexpr Real kUnit<bfloat16> = 0x1p-8L;
template <>
inline constexpr Real kUnit<float16> = 0x1p-11L;

/// Half the smallest positive number: the error of rounding where the relative bound ends.
template <class T>
inline constexpr Real kHalfSmallest = 0x1p-1075L;
template <>
inline constexpr Real kHalfSmallest<float> = 0x1p-150L;
template <>
inline constexpr Real kHalfSmallest<bfloat16> = 0x1p-134L;
template <>
inline constexpr Real kHalfSmallest<float16> = 0x1p-25L;

/// The error of rounding `value` to T, |value| known up to the other errors. 16-bit types are reached by way of float.
template <class T>
Real rounding(Real value) {
  const Real direct = kUnit<T> * (value < 0 ? -value : value) + kHalfSmallest<T>;
  if constexpr (kIsHalf<T>) return direct + (1 + kUnit<T>)*rounding<float>(value);
  return direct;
}

/// What belongs to channels: gamma, beta, their gradients, running statistics.
template <class T>
using ParameterOf = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// Bounds for one batch on one channel, in the order in which the layer computes. With u = 2^-53, S the positions of a
/// sample, L the merges that a sample's moments go through (at most all samples and ranks), R = max|x - mean|,
/// sigma = sqrt(var), to first order in u (the factor kSlack pays for the rest):
///
/// mean. A sample's mean is k + sum(x-k)/S with k its first value and |x-k| <= 2R: S+1 roundings of at most 2R each and
/// one of |mean|+R. A merge, base + delta*w with |delta| <= 2R and w <= 1/2, keeps the errors it gets (a convex
/// combination) and adds 3R from the product and |mean|+R from the sum:
///   e_mean = u * ( (L+1)*(|mean| + 4R) + 2(S+1)*R )
///
/// var. A sample's M2 = sum(d^2) - sum(d)^2/S errs by (3S+6)*u*sum(d^2) (Cauchy-Schwarz for the second term), and
/// sum(d^2)/M <= 2var + 2R^2; nothing if S = 1. Each merge rounds M2 twice; its delta^2*w errs by 6u of itself, and by
/// 2|delta|*2e_mean*w + 4e_mean^2*w through delta. In any tree of merges sum(w) <= sum(min(n_a, n_b)) <= M*l with
/// l = 1 + log2(L), and sum(delta^2*w) <= M*var, so by Cauchy-Schwarz sum(|delta|*w) <= M*sigma*sqrt(l):
///   e_var = u * ( (3S+6)*(2var + 2R^2) + (2L+7)*var ) + 4*e_mean*sigma*sqrt(l) + 4*e_mean^2*l
///
/// invstd. Relative: sqrt((var+eps)/(var+eps-e_var)) - 1 + 3u, which is infinite where the variance may be all error.
///
/// The oracle's own sums, M additions with a unit of 2^-64, are worth M/2^11 more merges.
///
/// This is Reduction::fast. Reduction::reproducible is within the same bounds: a sample's sums round as often, its
/// merges lose less than 2^-64 of the largest addend instead, and var = Q/M - mean^2 is formed with 2^-100 of Q/M, or
/// exactly.
struct ChannelBound {
  Real mean;    ///< Absolute.
  Real var;     ///< Absolute.
  Real invstd;  ///< Relative.
};
std::vector<ChannelBound> statistics(const Batch<Real>& x, const reference::Forward& forward, double eps);

/// Bounds of zero for statistics that are given (eval, frozen); only invstd is computed, with 3 roundings.
std::vector<ChannelBound> given_statistics(Index channels);

/// y = (x-mean)*(gamma*invstd) + beta: the errors of mean and invstd, five roundings of the product and one of the sum,
/// all in double, then one to T. 16-bit types are calculated in float: x - mean has two roundings more, the mean's second
/// float one (kMeanErrors), gamma*invstd one; beta is a float; the sum's is the rounding to float on the way to T.
template <class T>
Real y(const ChannelBound& bound, Real gamma, Real invstd, Real xhat, Real y);

/// Bounds of the backward pass, one channel. On the way to a sum a term goes through its product (3 roundings, x-mean
/// included) and at most S + L additions; the error of the mean enters sum(dy*(x-mean)) as e_mean*|sum(dy)|:
///   e_sum_dy     = u*(S+L)*sum|dy|
///   e_sum_dy_xmu = u*(S+L+3)*sum|dy*(x-mean)| + e_mean*|sum(dy)|
struct GradientBound {
  Real sum_dy;      ///< Absolute.
  Real sum_dy_xmu;  ///< Absolute.
  Real slope;       ///< Absolute, of k = invstd^2 * sum(dy*(x-mean)) / M: 4 roundings, twice the error of invstd.
  Real mean_dy;     ///< The values themselves, which scale the roundings of dx.
  Real slope_value;
};
std::vector<GradientBound> gradient_sums(const Batch<Real>& x, const Batch<Real>& dy, const reference::Forward& forward,
                                         const std::vector<ChannelBound>& bounds);

/// dgamma = sum_dy_xmu*invstd and dbeta = sum_dy, rounded to the parameters' type.
template <class T>
Real dgamma(const ChannelBound& bound, const GradientBound& gradient, Real invstd, Real dgamma);
template <class T>
Real dbeta(const GradientBound& gradient, Real dbeta);

/// dx = ((dy - mean_dy) - (x-mean)*k) * (gamma*invstd): three roundings of each addend and two of the result, the
/// errors of mean_dy = sum_dy/M, k, mean and invstd, then one to T. 16-bit types in float: coefficients that are rounded
/// once, x-mean twice, the inner sum once, so at most four of each addend; the outer sum's is on the way to T.
struct InputGradientTerms {
  Real gamma, invstd, dy, xmu, dx;
  Index count;
};
template <class T>
Real dx(const ChannelBound& bound, const GradientBound& gradient, const InputGradientTerms& terms);

/// Frozen: dx = dy * (gamma*invstd), three roundings in double, one of the coefficient to float for 16-bit types.
template <class T>
Real dx_frozen(const ChannelBound& bound, Real dx);

/// r = (1-m)*r + m*new with four roundings in double and one to the parameters' type. `before` bounds the error of the r that was there
/// (exact initial values: 0), `fresh` that of the new statistic.
template <class T>
Real running(Real before, Real momentum, Real fresh, Real old_value, Real new_value, Real result);

/// What a central difference of L = sum(w*y) with respect to one x, (L(x+h) - L(x-h)) / 2h, may be away from dL/dx for
/// exact L: h^2/6 * max|L'''|, the maximum over [x-h, x+h].
///
/// Moving x_i by t moves the centred values along z_j(t) = z_j + (delta_ij - 1/M)*t and var + eps along a parabola q(t)
/// with |q'| = 2|z_i + (1-1/M)t|/M and q'' = 2(M-1)/M^2 =: b. xhat_j = z_j * q^(-1/2), z'' = 0 and q''' = 0 give, with
/// s^2 = q and a = |q'|/s,
///   |xhat_j'''| <= s^-3 * ( |xhat_j| * (15/8 a^3 + 9/4 a*b) + 3|z_j'| * (3/4 a^2 + b/2) ),
/// and |L'''| <= |gamma| * sum(|w_j| * |xhat_j'''|).
struct DifferenceTerms {
  Real gamma, var_plus_eps, xmu, weight, step;  ///< Of the x that moves: x - mean and w.
  Real sum_weights;                             ///< sum|w_j| over the channel.
  Real sum_weighted_xmu;                        ///< sum|w_j * (x_j - mean)|.
  Index count;
};
Real central_difference(const DifferenceTerms& terms);

}  // namespace syncbn::testing::tolerance
