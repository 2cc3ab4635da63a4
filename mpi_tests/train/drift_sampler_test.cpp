// SPDX-License-Identifier: MIT
// Which steps of a training a drift sampler takes, by a clock of the test's own.
#include "train/drift_sampler.hpp"

#include <cmath>

#include <gtest/gtest.h>

namespace syncbn::train {
namespace {

/// Trains `steps` steps of `step_seconds`, in which probing one of two layers costs `probe_seconds` and writing as much.
/// The notes of two ranks are the same.
struct Training {
  Index steps = 1000;
  double step_seconds = 1e-3;
  double probe_seconds = 1e-6;
  Index channels = 128;

  std::vector<Index> taken;
  double spent = 0;
  double largest_share = 0;  ///< Of the time so far, after any step.

  void run() {
    DriftSampler sampler(steps);
    sampler.set_layers(2, channels);
    bool wanted = false;
    for (Index step = 1; step <= steps; ++step) {
      std::vector<float> notes(2 * DriftSampler::kNotesPerLayer);
      sampler.begin_step(wanted, notes.data());
      const bool wants_next = sampler.wants_step(step + 1);
      ASSERT_EQ(sampler.wants(step), wanted);
      if (wanted) {
        for (const char* layer : {"bn1", "bn2"}) {
          DriftRecord record;
          record.layer = layer;
          record.mean_drift = 0.25;
          record.probe_seconds = probe_seconds;
          sampler.record(record);
        }
        taken.push_back(step);
        spent += 3 * probe_seconds;
      }
      sampler.end_step(step_seconds);
      if (wanted) {
        const auto layers = sampler.over_ranks(2, [&](Index) { return notes.data(); });
        ASSERT_EQ(layers.size(), 2u);
        EXPECT_EQ(layers[0].layer, "bn1");
        EXPECT_EQ(layers[1].layer, "bn2");
        EXPECT_EQ(layers[1].mean_drift, 0.25);
      }
      sampler.spend(probe_seconds);
      wanted = wants_next;
      largest_share = std::max(largest_share, spent / (static_cast<double>(step) * step_seconds));
    }
  }
};

TEST(DriftSampler, TakesTwoHundredStepsEvenly) {
  Training training;
  training.run();
  ASSERT_EQ(training.taken.size(), 200u);
  for (std::size_t i = 1; i < training.taken.size(); ++i) EXPECT_EQ(training.taken[i] - training.taken[i - 1], 5);
  EXPECT_LE(training.taken.front(), 6);
  EXPECT_LE(training.largest_share, DriftSampler::kMostOfTime);
}

TEST(DriftSampler, NeverTakesMoreThanItsShareOfTheTime) {
  for (const double probe_seconds : {1e-6, 3e-6, 1e-5, 1e-4}) {
    Training training;
    training.steps = 5000;
    training.step_seconds = 1e-4;
    training.probe_seconds = probe_seconds;
    training.channels = 1000;  // reckoned at 1.1e-4 s
    training.run();
    EXPECT_GE(training.taken.size(), 1u) << probe_seconds;
    // The very first may cost more than was reckoned: 3e-4 of 2e-2 s.
    const double most = probe_seconds > 3e-5 ? 0.03 : DriftSampler::kMostOfTime;
    EXPECT_LE(training.largest_share, most) << probe_seconds;
    EXPECT_LE(training.spent, DriftSampler::kMostOfTime * 5000 * 1e-4) << probe_seconds;
  }
}

TEST(DriftSampler, TakesNothingOfTrainingsThatAreTooShort) {
  Training training;
  training.steps = 3;
  training.step_seconds = 1e-6;
  training.run();
  EXPECT_TRUE(training.taken.empty());
  DriftSampler without_layers(10);
  without_layers.end_step(1000);
  EXPECT_FALSE(without_layers.wants_step(2));
}

TEST(DriftSampler, TakesTheMeanSquareOverTheRanksThatHaveSamples) {
  DriftSampler sampler(1);
  sampler.set_layers(1, 1);
  std::vector<float> own(DriftSampler::kNotesPerLayer);
  sampler.begin_step(true, own.data());
  DriftRecord record;
  record.layer = "bn";
  record.mean_drift = 0.75;
  record.var_drift = 2;
  sampler.record(record);
  const std::vector<float> other = {1, 1.5F};
  const std::vector<float> none = {std::nanf(""), std::nanf("")};
  const float* notes[] = {own.data(), none.data(), other.data()};
  const auto drifts = sampler.over_ranks(3, [&](Index rank) { return notes[rank]; });
  ASSERT_EQ(drifts.size(), 1u);
  EXPECT_DOUBLE_EQ(drifts[0].mean_drift, std::sqrt((0.75 * 0.75 + 1) / 2));
  EXPECT_DOUBLE_EQ(drifts[0].var_drift, std::sqrt((4 + 1.5 * 1.5) / 2));
  EXPECT_TRUE(std::isnan(sampler.over_ranks(1, [&](Index) { return none.data(); })[0].mean_drift));
}

}  // namespace
}  // namespace syncbn::train
