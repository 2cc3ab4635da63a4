// SPDX-License-Identifier: MIT
#include "rounding_bound.hpp"

#include <algorithm>
#include <cmath>

namespace syncbn::cli {
namespace {

constexpr double kU = kUnitOfF64;

}  // namespace

RoundingBound::RoundingBound(const Matrix& x, const Matrix& dy, const ForwardNodes& nodes, const Parameters& parameters,
                             Index feature, int ranks)
    : gamma_(std::abs(parameters.gamma[static_cast<std::size_t>(feature)])),
      s_(std::sqrt(nodes.var[static_cast<std::size_t>(feature)] + parameters.eps)),
      count_(static_cast<double>(x.rows)),
      n_(count_ + ranks + 10.0) {
  for (Index i = 0; i < x.rows; ++i) {
    const double g = dy.at(i, feature);
    const double xhat = nodes.xhat.at(i, feature);
    largest_xhat_ = std::max(largest_xhat_, std::abs(xhat));
    mean_dy_size_ += std::abs(g) / count_;
    mean_product_size_ += std::abs(g * xhat) / count_;
    mean_product_ += g * xhat / count_;
  }
  const double condition = 1.0 + std::abs(nodes.mean[static_cast<std::size_t>(feature)]) / s_ + largest_xhat_;
  const double levels = 1.0 + std::log2(n_);
  rho_ = n_ * kU * (4.0 * (1.0 + largest_xhat_ * largest_xhat_) + 12.0 * condition * levels) + 3.0 * kU;
  e_xhat_ = 6.0 * n_ * kU * condition + largest_xhat_ * (rho_ + 5.0 * kU);
  for (Index i = 0; i < x.rows; ++i) {
    const double y_value = nodes.y.at(i, feature);
    const double beta = std::abs(parameters.beta[static_cast<std::size_t>(feature)]);
    const double y_error = gamma_ * e_xhat_ + kU * (std::abs(y_value) + beta);
    loss_error_ += std::abs(dy.at(i, feature)) * (y_error + n_ * kU * std::abs(y_value));
  }
}

double RoundingBound::y(double y_value, double unit) const {
  const double beta = gamma_ * largest_xhat_ + std::abs(y_value);  // |beta| = |y - gamma*xhat|
  return gamma_ * e_xhat_ + kU * (std::abs(y_value) + beta) + unit * std::abs(y_value);
}

double RoundingBound::dx(double dy_value, double dx_value, double unit) const {
  const double e_mean_product = n_ * kU * mean_product_size_ + mean_dy_size_ * e_xhat_;
  const double sizes = std::abs(dy_value) + mean_dy_size_ + largest_xhat_ * mean_product_size_;
  const double inside = n_ * kU * mean_dy_size_ + 2.0 * std::abs(mean_product_) * e_xhat_ +
                        largest_xhat_ * e_mean_product + 10.0 * kU * sizes;
  return gamma_ / s_ * inside + std::abs(dx_value) * (rho_ + 5.0 * kU + unit);
}

double RoundingBound::dgamma(double value, double unit) const {
  return count_ * (n_ * kU * mean_product_size_ + mean_dy_size_ * e_xhat_) + unit * std::abs(value);
}

double RoundingBound::dbeta(double value, double unit) const {
  return count_ * n_ * kU * mean_dy_size_ + unit * std::abs(value);
}

double RoundingBound::difference_in_x(double xmu, double dy_value, double step) const {
  const double reach = std::abs(xmu) + step;
  const double s = std::sqrt(s_ * s_ - 2.0 * reach * step / count_);  // at its least between x - h and x + h
  const double a = 2.0 * reach / (count_ * s);
  const double b = 2.0 * (count_ - 1.0) / (count_ * count_);
  const double sum_slopes = std::abs(dy_value) + mean_dy_size_;  // sum|dy_j * z_j'|
  const double sum_products = (count_ * mean_product_size_ * s_ + step * sum_slopes) / s;
  const double third =
      gamma_ / (s * s * s) *
      (sum_products * (15.0 * a * a * a / 8.0 + 9.0 * a * b / 4.0) + 3.0 * sum_slopes * (3.0 * a * a / 4.0 + b / 2.0));
  return step * step / 6.0 * third + loss_error_ / step;
}

double RoundingBound::difference_in_parameter(double step) const {
  const double growth = step * (e_xhat_ + (n_ + 1.0) * kU * (largest_xhat_ + 1.0));
  return (loss_error_ + count_ * mean_dy_size_ * growth) / step;
}

}  // namespace syncbn::cli
