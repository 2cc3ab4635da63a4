// SPDX-License-Identifier: MIT
// The drift probe against drift computed from its definition, and what it must leave alone.
#include "syncbn/drift_probe.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "layer/errors.hpp"
#include "layer/result_bytes.hpp"
#include "support/collective_counter.hpp"

namespace syncbn::testing {
namespace {

/// Keeps what it gets.
class Kept final : public DriftProbe {
 public:
  explicit Kept(std::int64_t every = 1) : every_(every) {}
  bool wants(std::int64_t call) const override { return call % every_ == 0; }
  void record(const DriftRecord& record) override {
    names.emplace_back(record.layer);
    records.push_back(record);
  }
  std::vector<std::string> names;
  std::vector<DriftRecord> records;

 private:
  std::int64_t every_;
};

struct Moments {
  double mean = 0;
  double var = 0;
};

/// Of one channel of a channels-first tensor.
Moments moments_of(const Tensor<float>& x, Index channel) {
  const auto at = [&](Index n, Index s) {
    return static_cast<double>(
        x.values[static_cast<std::size_t>((n * x.shape.channels + channel) * x.shape.positions + s)]);
  };
  const auto count = static_cast<double>(x.shape.samples * x.shape.positions);
  Moments moments;
  for (Index n = 0; n < x.shape.samples; ++n) {
    for (Index s = 0; s < x.shape.positions; ++s) moments.mean += at(n, s) / count;
  }
  for (Index n = 0; n < x.shape.samples; ++n) {
    for (Index s = 0; s < x.shape.positions; ++s) moments.var += std::pow(at(n, s) - moments.mean, 2) / count;
  }
  return moments;
}

LayerCase<float> case_with(inputs::Split split, std::uint64_t seed) {
  return make_case<float>({.seed = seed, .channels = 6, .spatial = {5}, .offset = 3},
                          inputs::split(split, 12, world_size()));
}

TEST(DriftProbe, IsTheDriftOfItsDefinition) {
  for (const Reduction reduction : {Reduction::reproducible, Reduction::fast}) {
    auto layer_case = case_with(inputs::Split::uneven, 601);
    const auto probe = std::make_shared<Kept>();
    layer_case.options.drift_probe = probe;
    layer_case.options.reduction = reduction;
    BatchNorm layer = make_layer(layer_case);
    Tensor<float> y = zeros_like<float>(layer_case.my_x());
    const BatchNormCache cache = layer.forward_train(layer_case.my_x().view(), y.view());

    ASSERT_EQ(probe->records.size(), 1u);
    const DriftRecord& record = probe->records.front();
    if (layer_case.my_x().shape.samples == 0) continue;  // KnowsNothingOfAnEmptyShardAndOfNan
    double mean_squares = 0, var_squares = 0, worst = 0;
    for (Index c = 0; c < 6; ++c) {
      const Moments own = moments_of(layer_case.my_x(), c);
      const auto i = static_cast<std::size_t>(c);
      const double spread = cache.var[i] + layer_case.options.eps;
      const double of_mean = (own.mean - cache.mean[i]) / std::sqrt(spread);
      mean_squares += of_mean * of_mean / 6;
      var_squares += std::pow((own.var - cache.var[i]) / spread, 2) / 6;
      worst = std::max(worst, std::abs(of_mean));
    }
    // Both ways are sums of a few hundred doubles near 3: relative errors of some hundred roundings.
    const double tolerance = 1e-12;
    EXPECT_NEAR(record.mean_drift, std::sqrt(mean_squares), tolerance);
    EXPECT_NEAR(record.var_drift, std::sqrt(var_squares), tolerance);
    EXPECT_NEAR(std::abs(record.worst_mean_drift), worst, tolerance);
    EXPECT_GT(record.mean_drift, world_size() > 1 ? 1e-3 : -1.0);  // shards do differ
    EXPECT_EQ(probe->names.front(), layer_case.options.name);
    EXPECT_EQ(record.rank, world_rank());
    EXPECT_EQ(record.ranks, world_size());
    EXPECT_EQ(record.own_count, layer_case.my_x().shape.samples * 5);
    EXPECT_EQ(record.count, 60);
    EXPECT_GE(record.wait_seconds, 0);
    EXPECT_GE(record.message_seconds, record.wait_seconds);
    EXPECT_GT(record.probe_seconds, 0);
  }
}

TEST(DriftProbe, ChangesNoBitAndSendsNothing) {
  auto plain_case = case_with(inputs::Split::even, 602);
  auto probed_case = plain_case;
  if (world_rank() == 0) probed_case.options.drift_probe = std::make_shared<Kept>();  // one rank's own affair
  BatchNorm plain = make_layer(plain_case);
  BatchNorm probed = make_layer(probed_case);
  CollectiveCounter::reset();
  const auto want = run_step(plain, plain_case);
  const std::int64_t calls = CollectiveCounter::total_collectives();
  CollectiveCounter::reset();
  const auto got = run_step(probed, probed_case);
  EXPECT_EQ(CollectiveCounter::total_collectives(), calls);
  EXPECT_TRUE(same_bits(step_bytes(probed, got), step_bytes(plain, want)));
}

TEST(DriftProbe, GetsTheCallsThatItWants) {
  auto layer_case = case_with(inputs::Split::even, 603);
  const auto probe = std::make_shared<Kept>(3);
  layer_case.options.drift_probe = probe;
  BatchNorm layer = make_layer(layer_case);
  for (int step = 0; step < 7; ++step) run_step(layer, layer_case);
  ASSERT_EQ(probe->records.size(), 2u);
  EXPECT_EQ(probe->records[0].call, 3);
  EXPECT_EQ(probe->records[1].call, 6);
}

TEST(DriftProbe, KnowsNothingOfAnEmptyShardAndOfNan) {
  auto layer_case = case_with(inputs::Split::first_empty, 604);
  const auto probe = std::make_shared<Kept>();
  layer_case.options.drift_probe = probe;
  BatchNorm layer = make_layer(layer_case);
  run_step(layer, layer_case);
  ASSERT_EQ(probe->records.size(), 1u);
  EXPECT_EQ(std::isnan(probe->records[0].mean_drift), layer_case.my_x().shape.samples == 0);

  Tensor<float> x = layer_case.my_x();
  if (!x.values.empty()) x.values[0] = std::nanf("");
  Tensor<float> y = zeros_like<float>(x);
  layer.forward_train(x.view(), y.view());
  EXPECT_TRUE(std::isnan(probe->records[1].mean_drift));
}

TEST(DriftProbe, ALayerThatIsAloneDoesNotDrift) {
  auto layer_case = case_with(inputs::Split::even, 605);
  const auto probe = std::make_shared<Kept>();
  layer_case.options.drift_probe = probe;
  BatchNorm layer = make_layer(layer_case, Communicator());
  run_step(layer, layer_case);
  if (layer_case.my_x().shape.samples == 0) GTEST_SKIP() << "no samples on this rank";
  EXPECT_EQ(probe->records.at(0).mean_drift, 0);
  EXPECT_EQ(probe->records[0].var_drift, 0);
  EXPECT_EQ(probe->records[0].ranks, 1);
}

TEST(DriftLog, WritesALineOfJsonForEachCallThatIsTaken) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("drift_log_test." + std::to_string(world_rank()) + "." + std::to_string(::getpid()) + ".jsonl");
  auto layer_case = case_with(inputs::Split::first_empty, 606);
  layer_case.options.name = "block \"1\"\\bn\n";
  layer_case.options.drift_probe = std::make_shared<DriftLog>(path.string(), 2);
  BatchNorm layer = make_layer(layer_case);
  for (int step = 0; step < 5; ++step) run_step(layer, layer_case);

  std::ifstream file(path);  // while the log is open: each line is flushed
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(lines.size(), 3u);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["layer"], layer_case.options.name);
    EXPECT_EQ(lines[i]["call"], 1 + 2 * i);
    EXPECT_EQ(lines[i]["rank"], world_rank());
    EXPECT_EQ(lines[i]["count"], 60);
    EXPECT_EQ(lines[i]["mean_drift"].is_null(), layer_case.my_x().shape.samples == 0);
    EXPECT_GE(lines[i]["wait_us"].get<double>(), 0);
  }
  std::filesystem::remove(path);
}

TEST(DriftLog, RefusesWhatCannotBe) {
  const Caught folder = error_of([] { DriftLog("/nowhere/at/all.jsonl"); });
  EXPECT_EQ(folder.code, ErrorCode::state);
  EXPECT_NE(folder.text.find("cannot make /nowhere/at/all.jsonl: No such file"), std::string::npos) << folder.text;
  const Caught every = error_of([] { DriftLog("/dev/null", 0); });
  EXPECT_EQ(every.code, ErrorCode::option);
}

TEST(DriftLog, AFullDiskIsAnErrorOfThatCall) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "needs /dev/full";
  DriftLog log("/dev/full");
  const Caught caught = error_of([&] { log.record({}); });
  EXPECT_EQ(caught.code, ErrorCode::state);
}

}  // namespace
}  // namespace syncbn::testing
