// SPDX-License-Identifier: MIT
// Options that are wrong, or differ between ranks, end in the same error on all ranks.
#include <limits>

#include <gtest/gtest.h>

#include "layer/errors.hpp"
#include "syncbn/syncbn.hpp"

namespace syncbn::testing {
namespace {

struct Change {
  const char* name;
  void (*apply)(BatchNormOptions&);
};

BatchNormOptions good_options() {
  BatchNormOptions options;
  options.num_features = 8;
  options.name = "layer4.bn2";
  return options;
}

/// Construction with the options changed on one rank, or on all.
Caught construct(const Change& change, int culprit, bool on_all = false) {
  BatchNormOptions options = good_options();
  if (on_all || world_rank() == culprit) change.apply(options);
  return error_of([&] { BatchNorm layer(options, Communicator(MPI_COMM_WORLD)); });
}

TEST(BatchNormConstruction, OptionOutOfRangeIsAnErrorOnAllRanks) {
  const Change changes[] = {
      {"num_features", [](BatchNormOptions& o) { o.num_features = 0; }},
      {"num_features", [](BatchNormOptions& o) { o.num_features = -3; }},
      {"eps", [](BatchNormOptions& o) { o.eps = -1e-5; }},
      {"eps", [](BatchNormOptions& o) { o.eps = std::numeric_limits<double>::infinity(); }},
      {"eps", [](BatchNormOptions& o) { o.eps = std::numeric_limits<double>::quiet_NaN(); }},
      {"threads", [](BatchNormOptions& o) { o.threads = 0; }},
      {"parameter_type is bf16", [](BatchNormOptions& o) { o.parameter_type = DataType::bf16; }},
      {"parameter_type is f16", [](BatchNormOptions& o) { o.parameter_type = DataType::f16; }},
      {"momentum", [](BatchNormOptions& o) { o.momentum = 1.5; }},
      {"momentum", [](BatchNormOptions& o) { o.momentum = -0.1; }},
      {"momentum", [](BatchNormOptions& o) { o.momentum = std::numeric_limits<double>::quiet_NaN(); }},
  };
  for (const Change& change : changes) {
    SCOPED_TRACE(std::string(change.name) + ", rank " + std::to_string(world_rank()));
    expect_same_error_everywhere(construct(change, 0, /*on_all=*/true), ErrorCode::option,
                                 {"[BatchNorm 'layer4.bn2'", change.name});
    for (const int culprit : {0, world_size() - 1}) {
      expect_same_error_everywhere(construct(change, culprit), ErrorCode::option,
                                   {"[BatchNorm 'layer4.bn2'", change.name, of_rank(culprit)});
    }
  }
}

TEST(BatchNormConstruction, OptionThatDiffersIsAMismatchOnAllRanks) {
  if (world_size() == 1) GTEST_SKIP() << "needs 2 ranks";
  const Change changes[] = {
      {"num_features", [](BatchNormOptions& o) { o.num_features = 1000; }},
      {"eps", [](BatchNormOptions& o) { o.eps = 1e-3; }},
      {"momentum", [](BatchNormOptions& o) { o.momentum = 0.2; }},
      {"momentum", [](BatchNormOptions& o) { o.momentum = std::nullopt; }},
      {"affine", [](BatchNormOptions& o) { o.affine = false; }},
      {"track_running_stats", [](BatchNormOptions& o) { o.track_running_stats = false; }},
      {"unbiased_running_var", [](BatchNormOptions& o) { o.unbiased_running_var = false; }},
      {"parameter_gradients", [](BatchNormOptions& o) { o.parameter_gradients = ParameterGradients::local; }},
      {"parameter_type", [](BatchNormOptions& o) { o.parameter_type = DataType::f64; }},
      {"reduction", [](BatchNormOptions& o) { o.reduction = Reduction::fast; }},
      {"non_finite", [](BatchNormOptions& o) { o.non_finite = NonFinitePolicy::error; }},
      {"name", [](BatchNormOptions& o) { o.name = "layer4.bn3"; }},
      {"name", [](BatchNormOptions& o) { o.name = std::string(200, 'x') + "1"; }},
  };
  for (const Change& change : changes) {
    for (const int culprit : {0, world_size() - 1}) {
      SCOPED_TRACE(std::string(change.name) + " differs on rank " + std::to_string(culprit) + ", rank " +
                   std::to_string(world_rank()));
      expect_same_error_everywhere(construct(change, culprit), ErrorCode::mismatch, {change.name, "rank 0", " of "});
    }
  }
}

TEST(BatchNormConstruction, LongNamesAreComparedToTheEnd) {
  if (world_size() == 1) GTEST_SKIP() << "needs 2 ranks";
  BatchNormOptions options = good_options();
  options.name = std::string(300, 'n') + (world_rank() == 0 ? "a" : "b");
  const Caught caught = error_of([&] { BatchNorm layer(options, Communicator(MPI_COMM_WORLD)); });
  expect_same_error_everywhere(caught, ErrorCode::mismatch, {"name"});
}

TEST(BatchNormConstruction, WorksAfterAFailedOne) {
  construct({"eps", [](BatchNormOptions& o) { o.eps = -1; }}, world_size() - 1);
  const Caught caught = construct({"nothing", [](BatchNormOptions&) {}}, 0);
  EXPECT_EQ(caught.code, ErrorCode::none) << caught.text;
}

TEST(BatchNormConstruction, StartsAsPyTorchDoes) {
  for (const DataType type : {DataType::f32, DataType::f64}) {
    BatchNormOptions options = good_options();
    options.parameter_type = type;
    const BatchNorm layer(options, Communicator(MPI_COMM_WORLD));
    EXPECT_EQ(values_of(layer.gamma()), std::vector<double>(8, 1.0));
    EXPECT_EQ(values_of(layer.beta()), std::vector<double>(8, 0.0));
    EXPECT_EQ(values_of(layer.running_mean()), std::vector<double>(8, 0.0));
    EXPECT_EQ(values_of(layer.running_var()), std::vector<double>(8, 1.0));
    EXPECT_EQ(layer.running_var().type(), type);
    EXPECT_EQ(layer.num_batches_tracked(), 0);
    EXPECT_EQ(layer.communicator().size(), world_size());
    EXPECT_EQ(layer.options().name, "layer4.bn2");
  }
}

TEST(BatchNormConstruction, NullCommunicatorIsAnMpiError) { EXPECT_THROW(Communicator{MPI_COMM_NULL}, MpiError); }

}  // namespace
}  // namespace syncbn::testing
