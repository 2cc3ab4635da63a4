// SPDX-License-Identifier: MIT
// How near the reproducible reduction comes to the exact result, for f32 and f64 data at the ends of their range and at
// large means. The oracle computes in 113 bits.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "layer/layer_case.hpp"

namespace syncbn::testing {
namespace {

__extension__ typedef __float128 Quad;

Quad magnitude(Quad v) { return v < 0 ? -v : v; }

/// One Newton step from 64 bits to more than 113.
Quad root(Quad v) {
  if (v == 0) return 0;
  const Quad s = std::sqrt(static_cast<long double>(v));
  return (s + v / s) / 2;
}

/// The distance between T's numbers at |v|.
template <class T>
Quad ulp(Quad v) {
  const T at = std::max(static_cast<T>(magnitude(v)), std::numeric_limits<T>::min());
  return static_cast<Quad>(std::ldexp(std::numeric_limits<T>::epsilon(), std::ilogb(at)));
}

/// What one channel should be, and how the layer's result compares, in ulps of T.
struct Reached {
  Index channels = 0;
  Index exact_mean = 0, exact_var = 0;  // correctly rounded to T
  double mean = 0, var = 0, y = 0, dx = 0, dgamma = 0, dbeta = 0;
  double share_of_bound = 0;  // of the statistics' errors in their bounds, f64

  void merge(const Reached& other) {
    channels += other.channels;
    exact_mean += other.exact_mean;
    exact_var += other.exact_var;
    for (double Reached::*worst : {&Reached::mean, &Reached::var, &Reached::y, &Reached::dx, &Reached::dgamma,
                                   &Reached::dbeta, &Reached::share_of_bound}) {
      this->*worst = std::max(this->*worst, other.*worst);
    }
  }
  /// Into the log: what is reached, not only that it suffices.
  void print(const std::string& what) const {
    if (world_rank() != 0) return;
    std::printf(
        "%-20s %5ld channels: mean exact in %.4f, worst %.2g ulp; var exact in %.4f, worst %.2g; y %.2f, dx %.2f, "
        "dgamma %.2f, dbeta %.2f\n",
        what.c_str(), static_cast<long>(channels), share(exact_mean), mean, share(exact_var), var, y, dx, dgamma,
        dbeta);
  }
  double share(Index part) const { return static_cast<double>(part) / static_cast<double>(channels); }
};

/// The worst of a and b, where NaN is worse than anything.
void raise(double& worst, Quad value) {
  const double v = static_cast<double>(value);
  if (!(v <= worst)) worst = v;
}

/// Sums over one channel of all ranks' parts.
template <class T>
struct Oracle {
  Quad count = 0, mean = 0, var = 0, sum_dy = 0, sum_dy_xmu = 0, abs_dy = 0, abs_dy_xmu = 0;
  Quad positions = 0;              // S, the most on any rank
  Quad difference = 0, first = 0;  // root mean squares of x - k and k - mean, k the first value of x's sample

  /// Of the statistics in f64. d = sum(x-k) and dd = sum((x-k)^2) of a sample are sums of S rounded terms in doubles,
  /// all that follows is exact to 2^-100 of its terms: u = 2^-53,
  ///   e_mean = (S+1)u * mean|x-k|
  ///   e_var  = (S+3)u * mean((x-k)^2) + 2 * mean(|k-mean| * e_mean of the sample)
  /// and, by Cauchy-Schwarz, root mean squares in place of means. Then one rounding, which may be an underflow.
  Quad mean_bound() const { return sum_error() * difference + rounding(mean); }
  Quad var_bound() const {
    return (sum_error() + 2 * kU) * difference * difference + 2 * first * sum_error() * difference + rounding(var);
  }

  Oracle(const Batch<T>& x, const Batch<T>& dy, Index c) {
    each(x, dy, c, [&](Quad xi, Quad) { ++count, mean += xi; });
    mean /= count;
    Quad rest = 0;  // of the mean's rounding
    each(x, dy, c, [&](Quad xi, Quad) { rest += xi - mean; });
    mean += rest / count;
    each(x, dy, c, [&](Quad xi, Quad g) {
      var += (xi - mean) * (xi - mean);
      sum_dy += g;
      sum_dy_xmu += g * (xi - mean);
      abs_dy += magnitude(g);
      abs_dy_xmu += magnitude(g * (xi - mean));
    });
    var /= count;
    for (const Tensor<T>& part : x) {
      positions = std::max(positions, static_cast<Quad>(part.shape.positions));
      for_each_element(part, [&](Index n, Index channel, Index s) {
        if (channel != c) return;
        const Quad k = part.at(n, c, 0);
        const Quad d = part.at(n, c, s) - k;
        difference += d * d / count;
        first += (k - mean) * (k - mean) / count;
      });
    }
    difference = root(difference);
    first = root(first);
  }
  template <class Visit>
  static void each(const Batch<T>& x, const Batch<T>& dy, Index c, const Visit& visit) {
    for (std::size_t r = 0; r < x.size(); ++r) {
      for (Index n = 0; n < x[r].shape.samples; ++n) {
        for (Index s = 0; s < x[r].shape.positions; ++s) visit(x[r].at(n, c, s), dy[r].at(n, c, s));
      }
    }
  }

 private:
  static constexpr double kU = 0x1p-53;
  Quad sum_error() const { return positions == 1 ? 0 : (positions + 1) * kU; }
  static Quad rounding(Quad value) {
    return (1 + 0x1p-30) * (kU * magnitude(value) + 4 * static_cast<Quad>(0x1p-1074));
  }
};

/// Elements of this rank's part, in ulps of the largest term of their formulas.
template <class T>
void add_elements(const LayerCase<T>& layer_case, const StepResult<T>& step, Index c, const Oracle<T>& want,
                  Reached& reached) {
  const auto i = static_cast<std::size_t>(c);
  const Quad gamma = layer_case.gamma[i];
  const Quad beta = layer_case.beta[i];
  const Quad shifted = want.var + static_cast<Quad>(layer_case.options.eps);
  const Quad invstd = shifted == 0 ? 0 : 1 / root(shifted);
  const Quad mean_dy = want.sum_dy / want.count;
  const Quad slope = want.sum_dy_xmu / want.count * invstd;
  const Tensor<T>& x = layer_case.x[static_cast<std::size_t>(world_rank())];
  const Tensor<T>& dy = layer_case.dy[static_cast<std::size_t>(world_rank())];
  for (Index n = 0; n < x.shape.samples; ++n) {
    for (Index s = 0; s < x.shape.positions; ++s) {
      const Quad xhat = (static_cast<Quad>(x.at(n, c, s)) - want.mean) * invstd;
      const Quad g = dy.at(n, c, s);
      const Quad y = gamma * xhat + beta;
      const Quad y_term = std::max(magnitude(gamma * xhat), magnitude(beta));
      raise(reached.y, magnitude(static_cast<Quad>(step.y.at(n, c, s)) - y) / ulp<T>(y_term));
      const Quad dx = gamma * invstd * (g - mean_dy - xhat * slope);
      const Quad dx_term =
          magnitude(gamma * invstd) * std::max({magnitude(g), magnitude(mean_dy), magnitude(xhat * slope)});
      raise(reached.dx, magnitude(static_cast<Quad>(step.dx.at(n, c, s)) - dx) / ulp<T>(dx_term));
    }
  }
  raise(reached.dgamma, magnitude(static_cast<Quad>(step.gradients.dgamma[c]) - want.sum_dy_xmu * invstd) /
                            ulp<T>(want.abs_dy_xmu * invstd));
  raise(reached.dbeta, magnitude(static_cast<Quad>(step.gradients.dbeta[c]) - want.sum_dy) / ulp<T>(want.abs_dy));
}

/// One step, against the oracle. Collective.
template <class T>
Reached measure(LayerCase<T>& layer_case) {
  BatchNorm layer = make_layer(layer_case);
  const StepResult<T> step = run_step(layer, layer_case);
  Reached reached;
  for (Index c = 0; c < layer_case.options.num_features; ++c) {
    const auto i = static_cast<std::size_t>(c);
    const Oracle<T> want(layer_case.x, layer_case.dy, c);
    const T mean = static_cast<T>(step.cache.mean[i]);
    const T var = static_cast<T>(step.cache.var[i]);
    ++reached.channels;
    reached.exact_mean += mean == static_cast<T>(want.mean);
    reached.exact_var += var == static_cast<T>(want.var);
    const Quad unit = ulp<T>(std::max(magnitude(want.mean), root(want.var) / 1000));
    raise(reached.mean, magnitude(static_cast<Quad>(step.cache.mean[i]) - want.mean) / unit);
    raise(reached.var, magnitude(static_cast<Quad>(step.cache.var[i]) - want.var) / ulp<T>(want.var));
    if (sizeof(T) == 8) {
      raise(reached.share_of_bound, magnitude(static_cast<Quad>(step.cache.mean[i]) - want.mean) / want.mean_bound());
      raise(reached.share_of_bound, magnitude(static_cast<Quad>(step.cache.var[i]) - want.var) / want.var_bound());
    }
    add_elements(layer_case, step, c, want, reached);
  }
  return reached;
}

struct Sweep {
  std::vector<double> ratios = {0, 1, 1e2, 1e4, 1e6};
  std::vector<double> scales;
  Index samples;
  Index channels;
  std::vector<Index> spatial = {};
};

/// All ratios and scales; eps in proportion to the variance, and 0.
template <class T>
Reached measure(const Sweep& sweep, const char* what) {
  Reached all;
  std::uint64_t seed = 3000;
  for (const double scale : sweep.scales) {
    for (const double ratio : sweep.ratios) {
      for (const double eps : {1e-5 * scale * scale, 0.0}) {
        for (const Layout layout : {Layout::channels_first, Layout::channels_last}) {
          auto layer_case = make_case<T>({.seed = ++seed,
                                          .channels = sweep.channels,
                                          .spatial = sweep.spatial,
                                          .layout = layout,
                                          .offset = ratio * scale,
                                          .scale = scale},
                                         inputs::split(inputs::Split::uneven, sweep.samples, world_size()));
          layer_case.options.eps = eps;
          all.merge(measure(layer_case));
        }
      }
    }
  }
  all.print(what);
  return all;
}

const std::vector<double> kScalesOfF32 = {1e-30, 1e-12, 1.0, 1e12, 1e30};

void expect_f32(const Reached& reached) {
  EXPECT_GE(reached.share(reached.exact_mean), 0.999);
  EXPECT_GE(reached.share(reached.exact_var), 0.999);
  // The statistics are kept in double, so they are nearer than f32 can say.
  EXPECT_LE(reached.mean, 1e-5);
  EXPECT_LE(reached.var, 1e-5);
  // One rounding of results that may be twice, or three times, as large as their largest term.
  EXPECT_LE(reached.y, 1.001);
  EXPECT_LE(reached.dx, 2.001);
  EXPECT_LE(reached.dgamma, 1);
  EXPECT_LE(reached.dbeta, 1);
}

TEST(BatchNormAccuracy, FloatRows) {
  expect_f32(measure<float>({.scales = kScalesOfF32, .samples = 1, .channels = 20}, "f32, 1 sample"));
  expect_f32(measure<float>({.scales = kScalesOfF32, .samples = 2, .channels = 50}, "f32, 2 samples"));
  expect_f32(measure<float>({.scales = kScalesOfF32, .samples = 100, .channels = 50}, "f32, 100 samples"));
  expect_f32(measure<float>({.scales = {1.0}, .samples = 100000, .channels = 1}, "f32, 100,000 samples"));
}

TEST(BatchNormAccuracy, FloatPlanes) {
  expect_f32(measure<float>({.scales = kScalesOfF32, .samples = 1, .channels = 20, .spatial = {7}}, "f32, 1 x 7"));
  expect_f32(
      measure<float>({.scales = kScalesOfF32, .samples = 16, .channels = 30, .spatial = {5, 5}}, "f32, 16 x 25"));
  expect_f32(
      measure<float>({.scales = {1.0}, .samples = 10, .channels = 1, .spatial = {100, 100}}, "f32, 10 x 10,000"));
}

const std::vector<double> kScalesOfF64 = {1e-145, 1e-30, 1.0, 1e30, 1e145};

/// The statistics are rounded exact sums.
void expect_f64_rows(const Reached& reached) {
  EXPECT_GE(reached.share(reached.exact_mean), 0.999);
  EXPECT_GE(reached.share(reached.exact_var), 0.999);
  EXPECT_LE(reached.share_of_bound, 1);
  // Roundings on the way, first order, each at most an ulp of the largest term: y has 2 in x-mean, 4 in gamma*invstd, 1
  // in their product and 2 at the sum; dx 4 in dy-mean(dy), 16 in xhat*mean(dy*xhat), 3 in their difference (of at most
  // 3 terms) and 15 in its product with gamma*invstd.
  EXPECT_LE(reached.y, 9);
  EXPECT_LE(reached.dx, 38);
}

TEST(BatchNormAccuracy, DoubleRows) {
  expect_f64_rows(measure<double>({.scales = kScalesOfF64, .samples = 1, .channels = 20}, "f64, 1 sample"));
  expect_f64_rows(measure<double>({.scales = kScalesOfF64, .samples = 2, .channels = 20}, "f64, 2 samples"));
  expect_f64_rows(measure<double>({.scales = kScalesOfF64, .samples = 100, .channels = 20}, "f64, 100 samples"));
  expect_f64_rows(measure<double>({.scales = {1.0}, .samples = 20000, .channels = 1}, "f64, 20,000 samples"));
}

TEST(BatchNormAccuracy, DoublePlanes) {
  for (const Reached& reached :
       {measure<double>({.scales = kScalesOfF64, .samples = 16, .channels = 20, .spatial = {5, 5}}, "f64, 16 x 25"),
        measure<double>({.scales = {1.0}, .samples = 10, .channels = 1, .spatial = {50, 50}}, "f64, 10 x 2,500")}) {
    EXPECT_LE(reached.share_of_bound, 1);
  }
}

/// A step of 20 samples of f64 with eps = 0; channel 1 is constant.
LayerCase<double> case_of_scale(double scale, double ratio, const std::vector<Index>& spatial) {
  auto layer_case =
      make_case<double>({.seed = 4000, .channels = 2, .spatial = spatial, .offset = ratio * scale, .scale = scale},
                        inputs::split(inputs::Split::uneven, 20, world_size()));
  inputs::set_channel(layer_case.x, 1, 1.1 * scale);
  layer_case.options.eps = 0.0;
  return layer_case;
}

// A variance below 2^-1022 is a subnormal number: it has an absolute error, as any double there.
TEST(BatchNormAccuracy, DoubleNearZeroHasAnAbsoluteError) {
  for (const std::vector<Index>& spatial : {std::vector<Index>{}, std::vector<Index>{5}}) {
    for (const double ratio : {0.0, 1e3}) {
      for (const double scale : {1e-150, 1e-153, 1e-156, 1e-159, 1e-162, 1e-200, 1e-308, 1e-320}) {
        auto layer_case = case_of_scale(scale, ratio, spatial);
        SCOPED_TRACE(layer_case.trace());
        BatchNorm layer = make_layer(layer_case);
        const auto step = run_step(layer, layer_case);
        const Oracle<double> want(layer_case.x, layer_case.dy, 0);
        EXPECT_LE(magnitude(step.cache.var[0] - want.var), want.var_bound());
        EXPECT_EQ(step.cache.mean[1], 1.1 * scale);
        EXPECT_EQ(step.cache.var[1], 0.0);
        for_each_element(step.y, [&](Index n, Index c, Index s) {
          if (c == 1) {
            EXPECT_EQ(step.y.at(n, c, s), layer_case.beta[1]);
          }
        });
      }
    }
  }
}

// Where the sum of squares is no double the channel is NaN, not wrong.
TEST(BatchNormAccuracy, DoubleBeyondItsSquaresIsNan) {
  for (const std::vector<Index>& spatial : {std::vector<Index>{}, std::vector<Index>{5}}) {
    for (const double scale : {1e150, 1e152, 1e155, 1e200, 1e305}) {
      auto layer_case = case_of_scale(scale, 0.0, spatial);
      SCOPED_TRACE(layer_case.trace());
      BatchNorm layer = make_layer(layer_case);
      const auto step = run_step(layer, layer_case);
      const Oracle<double> want(layer_case.x, layer_case.dy, 0);
      if (scale < 1e153) {
        EXPECT_LE(magnitude(step.cache.var[0] - want.var), want.var_bound());
      } else {
        EXPECT_TRUE(std::isnan(step.cache.var[0]) && std::isfinite(step.cache.mean[0]));
        for (const double y : step.y.values) EXPECT_TRUE(std::isnan(y));
      }
    }
  }
}

}  // namespace
}  // namespace syncbn::testing
