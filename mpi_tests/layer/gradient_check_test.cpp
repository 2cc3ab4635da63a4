// SPDX-License-Identifier: MIT
// backward() is the derivative of forward_train(): central differences of a random loss that all ranks share.
#include <cmath>

#include <gtest/gtest.h>

#include "layer/layer_case.hpp"

namespace syncbn::testing {
namespace {

/// h is a power of two and x has few bits, so that x + h and x - h are exact. The usual choice is cbrt(u)*sigma, where
/// truncation (h^2) and rounding (u/h) balance: 2^-17.7 for sigma = 1.
constexpr double kStep = 0x1p-17;

/// L is linear in gamma and beta: no truncation, so a large step is best.
constexpr double kLinearStep = 0.5;

class GradientCheck {
 public:
  explicit GradientCheck(LayerCase<double> layer_case)
      : case_(std::move(layer_case)),
        layer_(make_layer(case_)),
        want_(case_),
        step_(run_step(layer_, case_)),
        channels_(case_.options.num_features) {
    // What the roundings of y may add to L; doubled, as L is taken twice.
    loss_bound_.resize(static_cast<std::size_t>(channels_));
    for (std::size_t r = 0; r < case_.x.size(); ++r) {
      for_each_element(case_.x[r], [&](Index n, Index c, Index s) {
        loss_bound_[at(c)] += std::abs(want_.dy[r].at(n, c, s)) * want_.y_bound(r, n, c, s);
      });
    }
  }

  /// Every x of the global batch.
  void check_inputs() {
    for (std::size_t r = 0; r < case_.x.size(); ++r) {
      for_each_element(case_.x[r], [&](Index n, Index c, Index s) {
        double& x = case_.x[r].at(n, c, s);
        const Real slope = difference(x, kStep);
        if (static_cast<int>(r) != world_rank()) return;
        EXPECT_LE(std::abs(slope - Real{step_.dx.at(n, c, s)}),
                  truncation(r, n, c, s) + loss_bound_[at(c)] / kStep + want_.dx_bound(r, n, c, s))
            << case_.trace() << ", sample " << n << ", channel " << c << ", position " << s;
      });
    }
  }

  void check_parameters() {
    for (Index c = 0; c < channels_; ++c) {
      const auto& bounds = want_.bounds[at(c)];
      const auto& sums = want_.gradient_bounds[at(c)];
      EXPECT_LE(std::abs(difference(layer_.gamma().data<double>()[c], kLinearStep) - Real{step_.gradients.dgamma[c]}),
                linear_bound(c) +
                    tolerance::dgamma<double>(bounds, sums, want_.forward.invstd[at(c)], want_.backward.dgamma[at(c)]))
          << case_.trace() << ", gamma " << c;
      EXPECT_LE(std::abs(difference(layer_.beta().data<double>()[c], kLinearStep) - Real{step_.gradients.dbeta[c]}),
                linear_bound(c) + tolerance::dbeta<double>(sums, want_.backward.dbeta[at(c)]))
          << case_.trace() << ", beta " << c;
    }
  }

 private:
  static std::size_t at(Index c) { return static_cast<std::size_t>(c); }

  /// L = sum(dy*y) over all ranks. Collective.
  Real loss() {
    layer_.forward_train(std::as_const(case_.my_x()).view(), y_.view());
    Real sum = 0;
    for (std::size_t i = 0; i < y_.values.size(); ++i) sum += Real{case_.my_dy().values[i]} * Real{y_.values[i]};
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_LONG_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return sum;
  }

  /// Collective; all ranks move their own copy of the same number.
  Real difference(double& moved, double step) {
    const double middle = moved;
    moved = middle + step;
    const Real above = loss();
    moved = middle - step;
    const Real below = loss();
    moved = middle;
    return (above - below) / (2 * Real{step});
  }

  Real truncation(std::size_t r, Index n, Index c, Index s) const {
    tolerance::DifferenceTerms terms{};
    terms.gamma = want_.parameters.gamma_at(c);
    terms.var_plus_eps = want_.forward.moments.var[at(c)] + Real{case_.options.eps};
    terms.xmu = want_.x[r].at(n, c, s) - want_.forward.moments.mean[at(c)];
    terms.weight = want_.dy[r].at(n, c, s);
    terms.step = kStep;
    terms.count = want_.forward.moments.count;
    for (std::size_t part = 0; part < want_.x.size(); ++part) {
      for_each_element(want_.x[part], [&](Index i, Index channel, Index j) {
        if (channel != c) return;
        const Real weight = std::abs(want_.dy[part].at(i, c, j));
        terms.sum_weights += weight;
        terms.sum_weighted_xmu += weight * std::abs(want_.x[part].at(i, c, j) - want_.forward.moments.mean[at(c)]);
      });
    }
    return tolerance::central_difference(terms);
  }

  /// gamma and beta move by 1/2, so y and the roundings of it grow by at most (|gamma|+1/2)/|gamma| <= 2 (|gamma| >=
  /// 1/2), and by that of 1/2 more in beta, which xhat's own size covers on all but the smallest: a factor of 4 for
  /// both.
  Real linear_bound(Index c) const { return 4 * loss_bound_[at(c)] / Real{kLinearStep} + beta_rounding(c); }
  Real beta_rounding(Index c) const {
    Real weights = 0;
    for (const Tensor<Real>& part : want_.dy) {
      for_each_element(part, [&](Index n, Index channel, Index s) {
        if (channel == c) weights += std::abs(part.at(n, c, s));
      });
    }
    return 2 * tolerance::kUnit<double> * weights;
  }

  LayerCase<double> case_;
  BatchNorm layer_;
  Expectation<double> want_;
  StepResult<double> step_;
  Index channels_;
  std::vector<Real> loss_bound_;
  Tensor<double> y_ = zeros_like<double>(case_.my_x());
};

LayerCase<double> few_bits(LayerCase<double> layer_case) {
  for (Tensor<double>& part : layer_case.x) {
    for (double& x : part.values) x = std::round(x * 0x1p20) * 0x1p-20;
  }
  return layer_case;
}

TEST(BatchNormGradientCheck, CentralDifferencesOfALossAcrossRanksMatch) {
  for (const inputs::Split kind : inputs::kSplits) {
    GradientCheck check(few_bits(make_case<double>({.seed = 601, .channels = 3, .spatial = {2}, .offset = 3},
                                                   inputs::split(kind, 9, world_size()))));
    check.check_inputs();
    check.check_parameters();
  }
}

TEST(BatchNormGradientCheck, HoldsForTwoValuesAndLargeEps) {
  auto layer_case = few_bits(make_case<double>({.seed = 602, .channels = 2, .layout = Layout::channels_last},
                                               inputs::split(inputs::Split::only_last, 2, world_size())));
  layer_case.options.eps = 0.25;
  GradientCheck check(std::move(layer_case));
  check.check_inputs();
  check.check_parameters();
}

}  // namespace
}  // namespace syncbn::testing
