// SPDX-License-Identifier: MIT
// A unit's activations and gradients are the same bits on whatever rank it is: everything outside batch norm.
#include <cstring>
#include <functional>

#include <gtest/gtest.h>

#include "train/convolution.hpp"
#include "train/elementwise.hpp"
#include "train/linear.hpp"
#include "train/loss.hpp"
#include "train/random.hpp"

namespace syncbn::train {
namespace {

using Factory = std::function<std::unique_ptr<Module<float>>()>;

Buffer<float> random_values(Index count, std::uint64_t stream) {
  const CounterRandom random(5, stream);
  Buffer<float> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.uniform(i, -1, 1));
  return values;
}

/// What a step makes, in the order of samples or units, as if on one rank.
struct Trace {
  Buffer<float> y;
  Buffer<float> dx;
  Buffer<float> gradients;
};

void append(Buffer<float>& to, const float* from, Index count) { to.insert(to.end(), from, from + count); }

Tensor<float> rows(const Buffer<float>& all, const ImageShape& shape, const SampleRange& range) {
  Tensor<float> tensor;
  tensor.resize(range.count, shape);
  std::copy_n(all.data() + range.first * shape.size(), range.count * shape.size(), tensor.values.data());
  return tensor;
}

/// Runs the module on the shards of `ranks` ranks, one after the other.
Trace run(const Factory& make, const ImageShape& shape, Index batch, Index ranks) {
  const Buffer<float> all_x = random_values(batch * shape.size(), 1);
  Trace trace;
  for (Index rank = 0; rank < ranks; ++rank) {
    const std::unique_ptr<Module<float>> module = make();
    Trainables<float> trainables;
    module->collect(trainables);
    std::uint64_t stream = 10;
    for (Parameter<float>* parameter : trainables.parameters) {
      const Buffer<float> values = random_values(parameter->size, stream++);
      std::copy(values.begin(), values.end(), parameter->values);
    }
    const Shard shard = shard_of_rank(batch, rank, ranks);
    const Pass pass{Mode::train, shard.units};
    const Tensor<float> x = rows(all_x, shape, shard.samples);
    const Tensor<float>& y = module->forward(x, pass);
    const Buffer<float> all_dy = random_values(batch * y.shape.size(), 2);
    const Tensor<float> dy = rows(all_dy, y.shape, shard.samples);
    append(trace.y, y.values.data(), static_cast<Index>(y.values.size()));
    const Tensor<float>& dx = module->backward(dy, pass, InputGradient::wanted);
    append(trace.dx, dx.values.data(), static_cast<Index>(dx.values.size()));
    for (Index u = 0; u < static_cast<Index>(shard.units.size()); ++u) {
      for (const Parameter<float>* parameter : trainables.parameters) {
        append(trace.gradients, parameter->gradient(u), parameter->size);
      }
    }
  }
  return trace;
}

void expect_same_bits(const Buffer<float>& a, const Buffer<float>& b, const char* what, Index batch, Index ranks) {
  ASSERT_EQ(a.size(), b.size());
  if (a.empty()) return;
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0)
      << what << ", batch " << batch << ", " << ranks << " ranks";
}

void check(const Factory& make, const ImageShape& shape) {
  for (const Index batch : {3, 16, 22, 64}) {
    const Trace one = run(make, shape, batch, 1);
    for (const Index ranks : {2, 3, 5, 8, 11}) {
      const Trace many = run(make, shape, batch, ranks);
      expect_same_bits(one.y, many.y, "y", batch, ranks);
      expect_same_bits(one.dx, many.dx, "dx", batch, ranks);
      expect_same_bits(one.gradients, many.gradients, "gradients", batch, ranks);
    }
  }
}

TEST(UnitBits, OfLinear) {
  check([] { return std::make_unique<Linear<float>>("l", 144, 128, LinearKind::hidden); }, {1, 12, 12});
  check([] { return std::make_unique<Linear<float>>("l", 61, 10, LinearKind::output); }, {61, 1, 1});
}

TEST(UnitBits, OfConvolution) {
  check([] { return std::make_unique<Convolution<float>>("c", ImageShape{3, 7, 5}, 6); }, {3, 7, 5});
  check([] { return std::make_unique<Convolution<float>>("c", ImageShape{3, 7, 5}, 6, Window{1, 2}); }, {3, 7, 5});
}

TEST(UnitBits, OfPoolingAndRelu) {
  check([] { return std::make_unique<Relu<float>>(); }, {3, 7, 5});
  check([] { return std::make_unique<MaxPool<float>>(); }, {3, 7, 5});
  check([] { return std::make_unique<AveragePool<float>>(); }, {3, 7, 5});
  check([] { return std::make_unique<GlobalAveragePool<float>>(); }, {3, 7, 5});
}

TEST(UnitBits, OfTheLoss) {
  const Index batch = 22;
  const ImageShape shape{10, 1, 1};
  const Buffer<float> all = random_values(batch * 10, 3);
  const std::vector<std::uint8_t> labels(batch, 4);
  for (Index ranks = 1; ranks <= 8; ++ranks) {
    for (Index rank = 0; rank < ranks; ++rank) {
      const Shard shard = shard_of_rank(batch, rank, ranks);
      const Tensor<float> logits = rows(all, shape, shard.samples);
      Tensor<float> dlogits = logits;
      for (const SampleRange& unit : shard.units) {
        const Tensor<float> alone = rows(all, shape, {shard.samples.first + unit.first, unit.count});
        Tensor<float> dalone = alone;
        const double wanted = softmax_cross_entropy(alone, labels.data(), {0, unit.count}, batch, dalone);
        EXPECT_EQ(softmax_cross_entropy(logits, labels.data(), unit, batch, dlogits), wanted);
        for (Index i = 0; i < unit.count * 10; ++i)
          EXPECT_EQ(dlogits.sample(unit.first)[i], dalone.values[static_cast<std::size_t>(i)]);
      }
    }
  }
}

}  // namespace
}  // namespace syncbn::train
