// SPDX-License-Identifier: MIT
// Whole networks on several ranks: the gradient of the mean loss over the global batch, against finite differences.
#include "train/network.hpp"

#include <gtest/gtest.h>

#include "gradient_check.hpp"
#include "train/arm.hpp"
#include "train/collectives.hpp"
#include "train/errors.hpp"
#include "train/loss.hpp"
#include "train/random.hpp"

namespace syncbn::train {
namespace {

// No group of ranks with a single sample: its xhat is 0, where the ReLU behind it has no derivative.
constexpr Index kBatch = 15;
constexpr ImageShape kShape{1, 6, 6};

// Small, so that few of the thousands of ReLUs change sides within it; rounding then allows differences of 1e-7.
constexpr double kStep = 1e-6;

/// A network in double on this rank's shard of a random batch.
class Problem {
 public:
  Problem(const std::string& name, const Arm& arm) : ranks_(arm, MPI_COMM_WORLD) {
    network_ =
        make_network<double>(name, kShape, 10, [this](Index features, const std::string& norm, Activation activation) {
          return ranks_.make_norm(features, norm, activation, DataType::f64);
        });
    initialize(network_, 4);
    const Shard shard = shard_of_rank(kBatch, ranks_.rank(), ranks_.size());
    pass_.units = shard.units;
    const CounterRandom random(8, 0);
    x_.resize(shard.samples.count, kShape);
    for (std::size_t i = 0; i < x_.values.size(); ++i) {
      x_.values[i] = random.uniform(static_cast<std::uint64_t>(shard.samples.first * kShape.size()) + i, -1, 1);
    }
    for (Index n = 0; n < shard.samples.count; ++n) {
      labels_.push_back(static_cast<std::uint8_t>((shard.samples.first + n) * 7 % 10));
    }
  }

  Trainables<double>& trainables() { return network_.trainables; }

  /// Mean over the global batch. Collective.
  double loss() {
    const Tensor<double>& logits = network_.root->forward(x_, pass_);
    dlogits_.resize(logits.samples, logits.shape);
    double sum = 0;
    for (const SampleRange& unit : pass_.units) {
      sum += softmax_cross_entropy(logits, labels_.data(), unit, kBatch, dlogits_);
    }
    all_reduce_sum(MPI_COMM_WORLD, &sum, 1);
    return sum / kBatch;
  }

  void backward() {
    loss();
    network_.root->backward(dlogits_, pass_, InputGradient::unwanted);
  }

  /// All elements of a parameter's gradient over the global batch. Collective.
  std::vector<double> gradient(const Parameter<double>& parameter) {
    if (parameter.scope == GradientScope::global)
      return {parameter.gradient(0), parameter.gradient(0) + parameter.size};
    std::vector<double> sums(static_cast<std::size_t>(parameter.size));
    for (Index slot = 0; slot < parameter.slots; ++slot) {
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += parameter.gradient(slot)[i];
    }
    all_reduce_sum(MPI_COMM_WORLD, sums.data(), parameter.size);
    return sums;
  }

 private:
  ArmRanks ranks_;
  Network<double> network_;
  Pass pass_;
  Tensor<double> x_;
  std::vector<std::uint8_t> labels_;
  Tensor<double> dlogits_;
};

void check(const std::string& name, const Arm& arm) {
  Problem problem(name, arm);
  problem.backward();
  Index checked = 0;
  Index sharp = 0;
  for (Parameter<double>* parameter : problem.trainables().parameters) {
    const std::vector<double> gradient = problem.gradient(*parameter);
    // A dozen positions of each: rounding is that of a few hundred operations on numbers of order 1 per output.
    const Index stride = std::max<Index>(1, parameter->size / 12);
    for (Index i = 0; i < parameter->size; i += stride) {
      const double found = gradient[static_cast<std::size_t>(i)];
      const NumericalGradient wanted = numerical_gradient(
          parameter->values + i, 500, 1, [&] { return problem.loss(); }, kStep);
      EXPECT_NEAR(found, wanted.value, wanted.tolerance)
          << name << ", arm " << arm.name() << ", " << parameter->name << " at " << i;
      ++checked;
      if (std::abs(found) > 1000 * wanted.tolerance) ++sharp;
    }
  }
  EXPECT_GT(sharp, checked / 2) << "the bounds have become too coarse to catch anything";
}

TEST(NetworkGradient, OfMlpIsThatOfTheGlobalBatch) { check("mlp", Arm::parse("sync")); }
TEST(NetworkGradient, OfCnnIsThatOfTheGlobalBatch) { check("cnn", Arm::parse("sync")); }
TEST(NetworkGradient, OfResnetIsThatOfTheGlobalBatch) { check("resnet", Arm::parse("sync")); }
TEST(NetworkGradient, OfFusedLocalNormIsThatOfTheMeanLoss) { check("resnet", Arm::parse("local")); }
TEST(NetworkGradient, OfLocalNormIsThatOfTheMeanLoss) { check("cnn", Arm::parse("local")); }
TEST(NetworkGradient, OfGroupedNormIsThatOfTheMeanLoss) { check("mlp", Arm::parse("group:2")); }

TEST(MakeNetwork, RefusesImagesThatAreTooSmall) {
  const NormFactory make_norm = [](Index, const std::string&, Activation) -> BatchNorm {
    ADD_FAILURE() << "made a layer before the check";
    return BatchNorm({.num_features = 1});
  };
  EXPECT_THROW(make_network<float>("cnn", {1, 3, 9}, 10, make_norm), UsageError);
}

TEST(Initialize, GivesTheSameWeightsOnAllRanksAndOtherSeedsOthers) {
  const auto weights = [](std::uint64_t seed) {
    Network<float> network = make_network<float>("mlp", kShape, 10, [](Index features, const std::string&, Activation) {
      return BatchNorm({.num_features = features});
    });
    initialize(network, seed);
    const Parameter<float>& first = *network.trainables.parameters[0];
    return std::vector<float>(first.values, first.values + first.size);
  };
  std::vector<float> of_rank_0 = weights(1);
  broadcast(MPI_COMM_WORLD, of_rank_0);
  EXPECT_EQ(of_rank_0, weights(1));
  EXPECT_NE(of_rank_0, weights(2));
}

}  // namespace
}  // namespace syncbn::train
