// SPDX-License-Identifier: MIT
// Each module's backward() against finite differences of its forward(), in double; the loss, too.
#include "train/module.hpp"

#include <gtest/gtest.h>

#include "gradient_check.hpp"
#include "train/convolution.hpp"
#include "train/elementwise.hpp"
#include "train/linear.hpp"
#include "train/loss.hpp"
#include "train/norm.hpp"
#include "train/random.hpp"
#include "train/residual_block.hpp"

namespace syncbn::train {
namespace {

constexpr Index kBatch = 11;  // five units of 2, one of 1, two empty ones

void fill(double* values, Index count, std::uint64_t stream) {
  const CounterRandom random(77, stream);
  for (Index i = 0; i < count; ++i) values[i] = random.uniform(static_cast<std::uint64_t>(i), -1, 1);
}

Tensor<double> random_tensor(Index samples, const ImageShape& shape, std::uint64_t stream) {
  Tensor<double> tensor;
  tensor.resize(samples, shape);
  fill(tensor.values.data(), static_cast<Index>(tensor.values.size()), stream);
  return tensor;
}

/// sum(weights * y): its gradient with respect to y is `weights`.
double weighted_sum(const Tensor<double>& y, const Tensor<double>& weights) {
  double sum = 0;
  for (std::size_t i = 0; i < y.values.size(); ++i) sum += weights.values[i] * y.values[i];
  return sum;
}

double sum_of_slots(const Parameter<double>& parameter, Index position) {
  double sum = 0;
  for (Index slot = 0; slot < parameter.slots; ++slot) sum += parameter.gradient(slot)[position];
  return sum;
}

/// Checks dx and all parameter gradients of one module at a random point.
void check_module(Module<double>& module, const ImageShape& shape, double operations) {
  const Pass pass{Mode::train, shard_of_rank(kBatch, 0, 1).units};
  Tensor<double> x = random_tensor(kBatch, shape, 1);
  Trainables<double> trainables;
  module.collect(trainables);
  std::uint64_t stream = 10;
  for (Parameter<double>* parameter : trainables.parameters) fill(parameter->values, parameter->size, stream++);

  const Tensor<double>& y = module.forward(x, pass);
  const Tensor<double> dy = random_tensor(y.samples, y.shape, 2);
  const auto loss = [&] { return weighted_sum(module.forward(x, pass), dy); };
  const auto scale = static_cast<double>(dy.values.size());
  const Buffer<double> dx = module.backward(dy, pass, InputGradient::wanted).values;
  ASSERT_EQ(dx.size(), x.values.size());
  for (std::size_t i = 0; i < dx.size(); ++i) {
    const NumericalGradient wanted = numerical_gradient(&x.values[i], operations, scale, loss);
    EXPECT_NEAR(dx[i], wanted.value, wanted.tolerance) << "dx at " << i;
  }
  for (Parameter<double>* parameter : trainables.parameters) {
    for (Index i = 0; i < parameter->size; ++i) {
      const NumericalGradient wanted = numerical_gradient(parameter->values + i, operations, scale, loss);
      EXPECT_NEAR(sum_of_slots(*parameter, i), wanted.value, wanted.tolerance) << parameter->name << " at " << i;
    }
  }
}

TEST(LinearBackward, IsTheDerivativeOfForward) {
  Linear<double> hidden("hidden", 6, 5, LinearKind::hidden);
  check_module(hidden, {3, 1, 2}, 6);
  Linear<double> output("output", 6, 4, LinearKind::output);
  check_module(output, {6, 1, 1}, 7);
}

TEST(ConvolutionBackward, IsTheDerivativeOfForward) {
  Convolution<double> square("conv", {2, 4, 4}, 3);
  check_module(square, {2, 4, 4}, 18);
  Convolution<double> narrow("conv", {1, 1, 5}, 2);
  check_module(narrow, {1, 1, 5}, 9);
}

TEST(ConvolutionBackward, IsTheDerivativeOfForwardForOtherWindows) {
  for (const Window window : {Window{1, 1}, Window{1, 2}, Window{3, 2}, Window{5, 3}}) {
    for (const ImageShape& shape : {ImageShape{2, 4, 5}, ImageShape{1, 1, 1}, ImageShape{1, 2, 3}}) {
      Convolution<double> convolution("conv", shape, 2, window);
      check_module(convolution, shape, static_cast<double>(shape.channels * window.side * window.side));
    }
  }
}

TEST(ElementwiseBackward, IsTheDerivativeOfForward) {
  Relu<double> relu;
  check_module(relu, {2, 3, 3}, 1);
  MaxPool<double> max_pool;
  check_module(max_pool, {2, 5, 4}, 1);
  AveragePool<double> average_pool;
  check_module(average_pool, {2, 4, 5}, 4);
  GlobalAveragePool<double> global_average_pool;
  check_module(global_average_pool, {2, 4, 5}, 20);
}

TEST(NormBackward, IsTheDerivativeOfForward) {
  BatchNormOptions options;
  options.num_features = 3;
  options.parameter_type = DataType::f64;
  Norm<double> norm{BatchNorm(options)};
  check_module(norm, {3, 2, 2}, 4 * kBatch + 10);
}

/// Batch norm of this process alone.
BatchNorm make_norm(Index num_features, const std::string& name, Activation activation) {
  BatchNormOptions options;
  options.num_features = num_features;
  options.name = name;
  options.activation = activation;
  options.parameter_type = DataType::f64;
  return BatchNorm(options);
}

TEST(ResidualBlockBackward, IsTheDerivativeOfForward) {
  // Numbers of order 10 take some 30 operations in each of three layers.
  ResidualBlock<double> same_shape("block", {3, 4, 3}, 3, 1, make_norm);
  check_module(same_shape, {3, 4, 3}, 1000);
  ResidualBlock<double> wider("block", {2, 3, 4}, 3, 1, make_norm);
  check_module(wider, {2, 3, 4}, 1000);
  ResidualBlock<double> strided("block", {2, 5, 4}, 2, 2, make_norm);
  EXPECT_EQ(strided.output_shape(), (ImageShape{2, 3, 2}));
  check_module(strided, {2, 5, 4}, 1000);
}

TEST(ResidualBlockForward, AddsTheInputInFrontOfTheLastRelu) {
  ResidualBlock<double> block("block", {2, 3, 3}, 2, 1, make_norm);
  const Tensor<double> x = random_tensor(4, {2, 3, 3}, 7);
  // Weights are 0, so batch norm's part is beta = 0, and what is left is relu(x).
  for (const Mode mode : {Mode::train, Mode::eval}) {
    const Tensor<double>& y = block.forward(x, {mode, {{0, 4}}});
    for (std::size_t i = 0; i < x.values.size(); ++i) EXPECT_EQ(y.values[i], std::max(x.values[i], 0.0)) << i;
  }
}

TEST(SequentialBackward, IsTheDerivativeOfForward) {
  Sequential<double> net;
  net.add(std::make_unique<Convolution<double>>("conv", ImageShape{1, 4, 4}, 2));
  net.add(std::make_unique<Relu<double>>());
  net.add(std::make_unique<AveragePool<double>>());
  net.add(std::make_unique<Linear<double>>("linear", 8, 3, LinearKind::output));
  check_module(net, {1, 4, 4}, 30);
}

TEST(ConvolutionForward, IsTheSumOverTheWindow) {
  Convolution<double> convolution("conv", {2, 3, 4}, 2);
  Trainables<double> trainables;
  convolution.collect(trainables);
  const double* w = trainables.parameters[0]->values;
  fill(trainables.parameters[0]->values, 36, 3);
  const Tensor<double> x = random_tensor(2, {2, 3, 4}, 4);
  const Tensor<double>& y = convolution.forward(x, {Mode::train, {{0, 2}}});
  const auto pixel = [&](Index n, Index c, Index i, Index j) {
    return i < 0 || j < 0 || i > 2 || j > 3 ? 0.0 : x.sample(n)[(c * 3 + i) * 4 + j];
  };
  for (Index n = 0; n < 2; ++n) {
    for (Index o = 0; o < 2; ++o) {
      for (Index at = 0; at < 12; ++at) {
        double sum = 0;
        for (Index tap = 0; tap < 18; ++tap) {
          sum += w[o * 18 + tap] * pixel(n, tap / 9, at / 4 + tap % 9 / 3 - 1, at % 4 + tap % 3 - 1);
        }
        EXPECT_NEAR(y.sample(n)[o * 12 + at], sum, 18 * 18 * std::numeric_limits<double>::epsilon());
      }
    }
  }
}

TEST(ConvolutionForward, TakesEveryStrideThPositionOfTheDenseOne) {
  for (const Index side : {1, 3, 5}) {
    for (const Index stride : {2, 3}) {
      const ImageShape shape{2, 5, 7};
      Convolution<double> dense("dense", shape, 3, {side, 1});
      Convolution<double> strided("strided", shape, 3, {side, stride});
      Trainables<double> trainables;
      dense.collect(trainables);
      strided.collect(trainables);
      fill(trainables.parameters[0]->values, trainables.parameters[0]->size, 3);
      fill(trainables.parameters[1]->values, trainables.parameters[1]->size, 3);
      const Tensor<double> x = random_tensor(2, shape, 4);
      const Tensor<double>& all = dense.forward(x, {Mode::train, {{0, 2}}});
      const Tensor<double>& some = strided.forward(x, {Mode::train, {{0, 2}}});
      ASSERT_EQ(all.shape, (ImageShape{3, 5, 7}));
      ASSERT_EQ(some.shape, (ImageShape{3, (5 + stride - 1) / stride, (7 + stride - 1) / stride}));
      const double rounding = static_cast<double>(shape.channels * side * side);
      for (Index at = 0; at < 2 * some.shape.size(); ++at) {
        const Index plane = at / some.shape.positions();
        const Index i = at % some.shape.positions() / some.shape.width;
        const Index j = at % some.shape.width;
        const double wanted = all.values[static_cast<std::size_t>((plane * 5 + i * stride) * 7 + j * stride)];
        EXPECT_NEAR(some.values[static_cast<std::size_t>(at)], wanted,
                    rounding * rounding * std::numeric_limits<double>::epsilon());
      }
    }
  }
}

TEST(SoftmaxCrossEntropy, GradientIsTheDerivativeOfTheMean) {
  Tensor<double> logits = random_tensor(5, {4, 1, 1}, 5);
  const std::uint8_t labels[] = {0, 3, 1, 1, 2};
  Tensor<double> dlogits;
  dlogits.resize(5, {4, 1, 1});
  Tensor<double> ignored = dlogits;
  const Index batch = 9;  // of which this rank has 5
  softmax_cross_entropy(logits, labels, {0, 5}, batch, dlogits);
  const auto mean = [&] { return softmax_cross_entropy(logits, labels, {0, 5}, batch, ignored) / batch; };
  for (std::size_t i = 0; i < 20; ++i) {
    const NumericalGradient wanted = numerical_gradient(&logits.values[i], 20, 2, mean);
    EXPECT_NEAR(dlogits.values[i], wanted.value, wanted.tolerance) << i;
  }
}

TEST(SoftmaxCrossEntropy, SurvivesLargeLogitsAndShowsNaN) {
  Tensor<float> logits;
  logits.resize(2, {2, 1, 1});
  logits.values = {3e38f, -3e38f, 0, 1};
  Tensor<float> dlogits = logits;
  const std::uint8_t labels[] = {0, 1};
  EXPECT_TRUE(std::isfinite(softmax_cross_entropy(logits, labels, {0, 2}, 2, dlogits)));
  EXPECT_EQ(count_correct(logits, labels), 2);
  logits.values[0] = NAN;
  EXPECT_FALSE(std::isfinite(softmax_cross_entropy(logits, labels, {0, 2}, 2, dlogits)));
  EXPECT_EQ(count_correct(logits, labels), 1);
}

TEST(EvalForward, UsesRunningStatisticsAndChangesNothing) {
  BatchNormOptions options;
  options.num_features = 2;
  options.parameter_type = DataType::f64;
  Norm<double> norm{BatchNorm(options)};
  Trainables<double> trainables;
  norm.collect(trainables);
  const Tensor<double> x = random_tensor(4, {2, 1, 1}, 6);
  const Tensor<double>& y = norm.forward(x, {Mode::eval, {{0, 4}}});
  const double invstd = 1 / std::sqrt(1 + options.eps);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_NEAR(y.values[i], x.values[i] * invstd, 4e-16);
  EXPECT_EQ(trainables.norms[0]->num_batches_tracked(), 0);
}

}  // namespace
}  // namespace syncbn::train
