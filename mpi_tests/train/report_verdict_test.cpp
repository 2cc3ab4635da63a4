// SPDX-License-Identifier: MIT
// What the report says of a run in words.
#include <sstream>

#include <gtest/gtest.h>

#include "told_run.hpp"
#include "train/report_page.hpp"

namespace syncbn::train {
namespace {

TEST(ReportVerdict, SaysWhatLocalCosts) {
  ToldRun run({1, 2, 3});
  for (const std::uint64_t seed : {1, 2, 3}) {
    const double noise = 0.001 * static_cast<double>(seed);
    run.train("single", seed, 0.2 + noise).train("sync", seed, 0.2 + noise, 1.1e-3).train("local", seed, 0.3 + noise);
    run.check(seed, true);
  }
  const Verdict verdict = run.verdict();
  EXPECT_EQ(
      verdict.headline,
      "With 4 samples per process, local batch norm costs you 10.0 points here: 30.2 % test error against 20.2 % "
      "with sync (medians of 3 seeds, whose ranges lie apart). Synchronizing lowers the error here, for 10 % more "
      "time a step.");
  EXPECT_TRUE(mentions(verdict, "the ranges do not overlap"));
  EXPECT_TRUE(mentions(verdict, "by chance in 1 of 10 comparisons"));
  EXPECT_TRUE(mentions(verdict, "A step takes 10 % longer with sync than with local (1.10 ms against 1.00 ms)"));
  EXPECT_TRUE(mentions(verdict, "to the last bit of every weight"));
  EXPECT_FALSE(mentions(verdict, "more ranks than cores"));
  EXPECT_EQ(verdict.unfinished, "");
}

TEST(ReportVerdict, CallsNothingADifferenceThatTheSeedsSpreadCovers) {
  ToldRun run({1, 2}, 2);
  run.train("sync", 1, 0.20, 2e-3).train("local", 1, 0.23).train("sync", 2, 0.24, 0.5e-3).train("local", 2, 0.22);
  const Verdict verdict = run.verdict();
  EXPECT_TRUE(contains(verdict.headline, "makes no difference here that 2 seeds can show")) << verdict.headline;
  EXPECT_TRUE(mentions(verdict, "the ranges overlap"));
  EXPECT_FALSE(mentions(verdict, "by chance"));
  EXPECT_TRUE(mentions(verdict,
                       "A step takes 1.25 ms with sync and 1.00 ms with local, over the seeds from 50 % less to 2.0 "
                       "times as much."));
  EXPECT_TRUE(mentions(verdict, "more ranks than cores"));
  EXPECT_FALSE(mentions(verdict, "no measurable cost"));
}

TEST(ReportVerdict, SortsSeveralBatchesByWhatLocalDoes) {
  std::ostringstream metrics;
  const auto train = [&](const char* arm, Index batch, double error, double step_seconds) {
    for (const char* seed : {"1", "2"}) {
      const std::string head =
          std::string(R"(,"arm":")") + arm + R"(","batch":)" + std::to_string(batch) + R"(,"seed":)" + seed;
      metrics << R"({"kind":"epoch")" << head << R"(,"epoch":1,"test_accuracy":)" << 1 - error << R"(,"step_seconds":)"
              << step_seconds << "}\n"
              << R"({"kind":"end")" << head << "}\n";
    }
  };
  const double local_errors[] = {0.2, 0.2, 0.3, 0.5};
  std::string shares;
  for (int i = 0; i < 4; ++i) {
    const Index batch = Index{64} >> i;
    train("sync", batch, 0.2, 2.5e-3);
    train("local", batch, local_errors[i], i == 3 ? 1e-3 : 2e-3);
    const std::string samples = std::to_string(batch / 4);
    if (i > 0) shares += ",";
    shares += R"({"arm":"local","batch":)" + std::to_string(batch) + R"(,"rank_batch_min":)" + samples +
              R"(,"rank_batch_max":)" + samples + "}";
  }
  std::istringstream lines(metrics.str());
  const RunRecord run = parse_run("DIR",
                                  R"({"state":"finished","ranks":4,"arguments":{"epochs":1,"batches":[64,32,16,8],)"
                                  R"("arms":["sync","local"],"seeds":[1,2]},"shares":[)" +
                                      shares + "]}",
                                  lines);
  const Verdict verdict = verdict_of(run, figures_of(run));
  EXPECT_EQ(verdict.headline,
            "Local batch norm costs you 30.0 points at 2 samples per process, costs you 10.0 points at 4 and makes no "
            "difference that the seeds can show at 8 and 16 (test error, compared with sync).");
  EXPECT_TRUE(
      mentions(verdict,
               "A step with sync, compared with local, takes: 2.5 times as much at 2 samples per process (2.50 ms "
               "against 1.00 ms); 25 % more at 4 (2.50 ms against 2.00 ms); 25 % more at 8 "));
  EXPECT_TRUE(mentions(verdict, "in 1 of 3 comparisons: a hint, not more; try --seeds 5."));
  EXPECT_TRUE(contains(report_html(run), "samples per process, n (logarithmic)"));
  RunRecord sorted = run;
  sorted.sharding = Sharding::parse("by-class");
  EXPECT_EQ(verdict_of(sorted, figures_of(sorted)).headline,
            "With samples handed out by class, l" + verdict.headline.substr(1));
}

TEST(ReportVerdict, SaysHowSamplesWereHandedOut) {
  const auto told = [](const std::string& shard) {
    ToldRun run({1, 2});
    run.shard = shard;
    for (const std::uint64_t seed : {1, 2}) run.train("sync", seed, 0.2).train("local", seed, 0.3);
    return run;
  };
  const std::string rest = ", local batch norm costs you 10.0 points here: ";
  for (const char* plain : {"", "iid"}) {
    EXPECT_TRUE(contains(told(plain).headline(), "With 4 samples per process" + rest)) << plain;
    EXPECT_TRUE(contains(report_html(told(plain).record()), "iid: as the epoch&#39;s shuffle has them")) << plain;
  }
  EXPECT_TRUE(contains(told("by-class").headline(), "With 4 samples per process, handed out by class" + rest));
  EXPECT_TRUE(contains(told("dirichlet:0.3").headline(), "handed out in uneven class mixes (dirichlet:0.3)" + rest));
  EXPECT_TRUE(contains(report_html(told("dirichlet:0.3").record()), "dirichlet:0.3: a class mix of its own"));
  ToldRun alone({1});
  alone.shard = "by-class";
  EXPECT_EQ(alone.train("sync", 1, 0.2).headline(),
            "Test error after the only epoch, with samples handed out by class: sync 20.0 %.");
}

TEST(ReportVerdict, HasTimesThatAgreeWithEachOther) {
  ToldRun run({1, 2, 3});  // medians of ratios: 1.97; ratio of medians: 1.25
  run.train("sync", 1, 0.2, 1.04e-3).train("sync", 2, 0.2, 1.97e-3).train("sync", 3, 0.2, 0.9e-3);
  run.train("local", 1, 0.2, 0.1e-3).train("local", 2, 0.2, 1e-3).train("local", 3, 0.2, 0.83e-3);
  EXPECT_TRUE(
      mentions(run.verdict(), "A step takes 25 % longer with sync than with local (1.04 ms against 0.830 ms)."));
}

TEST(ReportVerdict, TakesNoiseForNothingWithOneSeedToo) {
  ToldRun run({1});
  run.train("sync", 1, 0.2, 1.1e-3).train("local", 1, 0.2, 1e-3);
  EXPECT_TRUE(mentions(run.verdict(), "A step takes 10 % longer with sync"));
  for (const char* arm : {"sync", "local"}) {
    run.metrics << R"({"kind":"epoch","arm":")" << arm << R"(","batch":16,"seed":1,"epoch":2,"test_accuracy":0.8,)"
                << R"("step_seconds":)" << (arm[0] == 's' ? 0.0009 : 0.001) << "}\n";
  }
  EXPECT_TRUE(
      mentions(run.verdict(),
               "no measurable cost in time here: a step takes 1.00 ms with sync and 1.00 ms with local, over the "
               "epochs from 10 % less to 10 % more."));
}

TEST(ReportVerdict, SaysNothingOfTimesThatMayBeNothingOrMuch) {
  ToldRun run({1, 2, 3});
  for (const std::uint64_t seed : {1, 2, 3}) {
    run.train("sync", seed, 0.2, seed == 1 ? 2e-3 : 0.9e-3).train("local", seed, 0.3);
  }
  EXPECT_TRUE(
      contains(run.headline(), "Synchronizing lowers the error here; what it costs in time this run cannot tell."));
  EXPECT_TRUE(
      mentions(run.verdict(),
               "What synchronizing costs in time this run cannot tell: a step takes 0.900 ms with sync and 1.00 "
               "ms with local, over the seeds from 10 % less to 2.0 times as much."));
}

TEST(ReportVerdict, DoesNotCallOneSeedsTimesCertain) {
  ToldRun run({1});
  run.train("sync", 1, 0.2, 0.8e-3).train("local", 1, 0.2, 1e-3);
  EXPECT_TRUE(mentions(run.verdict(),
                       "A step takes no longer with sync than with local (0.800 ms against 1.00 ms; one "
                       "seed, perhaps by chance)."));
}

TEST(ReportVerdict, CallsTwoSeedsAHint) {
  ToldRun run({1, 2});
  for (const std::uint64_t seed : {1, 2}) run.train("sync", seed, 0.2).train("local", seed, 0.3);
  EXPECT_EQ(run.headline(),
            "With 4 samples per process, local batch norm costs you 10.0 points here: 30.0 % test error against 20.0 % "
            "with sync (means of 2 seeds, whose ranges lie apart). Two seeds are a hint, not more: try --seeds 5.");
}

TEST(ReportVerdict, SaysNothingOfTimesOnSharedCores) {
  ToldRun run({1, 2, 3}, 2);
  for (const std::uint64_t seed : {1, 2, 3}) run.train("sync", seed, 0.2, 9e-3).train("local", seed, 0.3);
  EXPECT_TRUE(
      contains(run.headline(), "Synchronizing lowers the error here; what it costs in time this run cannot tell."));
}

TEST(ReportVerdict, HoldsLocalAgainstSingleWhereThereIsNoSync) {
  ToldRun run({1, 2, 3});
  run.arms = R"("single","local")";
  for (const std::uint64_t seed : {1, 2, 3}) run.train("single", seed, 0.2).train("local", seed, 0.3);
  const Verdict verdict = run.verdict();
  EXPECT_TRUE(contains(verdict.headline, "30.0 % test error against 20.0 % with the full batch in one process"));
  EXPECT_TRUE(contains(verdict.headline, "what it costs in time this run cannot tell"));
  EXPECT_FALSE(mentions(verdict, "A step takes"));
}

TEST(ReportVerdict, SaysWhatCannotBeSeenWithoutLocal) {
  ToldRun run({1, 2, 3});
  run.arms = R"("single","sync")";
  for (const std::uint64_t seed : {1, 2, 3}) run.train("single", seed, 0.2).train("sync", seed, 0.2);
  EXPECT_EQ(run.headline(),
            "Test error after the only epoch: single 20.0 %, sync 20.0 %. What synchronizing gains cannot be seen "
            "without the arm local.");
}

TEST(ReportVerdict, NamesGroups) {
  ToldRun run({1, 2, 3});
  run.arms = R"("sync","group:2","local")";
  for (const std::uint64_t seed : {1, 2, 3}) {
    run.train("sync", seed, 0.2).train("group:2", seed, 0.25).train("local", seed, 0.3);
  }
  EXPECT_TRUE(contains(run.headline(), "local batch norm costs you 10.0 points here"));
  EXPECT_TRUE(mentions(run.verdict(),
                       "batch norm over groups of 2 processes costs you 5.0 points here: 25.0 % test "
                       "error against 20.0 % with sync (medians of 3 seeds, whose ranges lie apart)."));
  run.arms = R"("sync","group:2")";
  run.metrics.str("");
  for (const std::uint64_t seed : {1, 2, 3}) run.train("sync", seed, 0.2).train("group:2", seed, 0.25);
  EXPECT_TRUE(contains(run.headline(), "batch norm over groups of 2 processes costs you 5.0 points here"));
}

TEST(ReportVerdict, SaysWhatTheEndOfAShortTrainingIs) {
  ToldRun run({1});
  run.train("sync", 1, 0.2).train("local", 1, 0.3);
  EXPECT_TRUE(mentions(run.verdict(), "There was one epoch: the error of a training is that after it"));
  EXPECT_FALSE(contains(report_html(run.record()), "1 epochs"));
  EXPECT_TRUE(contains(report_html(run.record()), "Test error after the only epoch, per arm"));
  run.epochs = 2;
  EXPECT_TRUE(mentions(run.verdict(), "There were two epochs: the error of a training is the mean of both"));
  EXPECT_TRUE(contains(report_html(run.record()), "Test error, mean of both epochs"));
  run.epochs = 4;
  EXPECT_FALSE(mentions(run.verdict(), "epoch"));
  EXPECT_TRUE(contains(report_html(run.record()), "Test error at the end"));
}

TEST(ReportVerdict, IsModestWithOneSeed) {
  ToldRun run({7});
  const std::string headline = run.train("sync", 7, 0.2).train("local", 7, 0.231).headline();
  EXPECT_TRUE(contains(headline, "ended 3.1 points of test error higher than sync")) << headline;
  EXPECT_TRUE(contains(headline, "One seed cannot tell that from chance")) << headline;
}

TEST(ReportVerdict, AdmitsThatLocalIsBetter) {
  ToldRun run({1, 2});
  run.train("sync", 1, 0.20).train("local", 1, 0.10).train("sync", 2, 0.21).train("local", 2, 0.12);
  EXPECT_TRUE(contains(run.headline(), "does better by 9.5 points"));
}

TEST(ReportVerdict, TellsDivergenceFromFaults) {
  ToldRun local({1});
  EXPECT_TRUE(contains(local.train("sync", 1, 0.2).diverge("local", 1).headline(), "diverged with 1 of 1 seed;"));
  ToldRun all({1});
  all.diverge("single", 1).diverge("sync", 1).diverge("local", 1).check(1, false);
  EXPECT_TRUE(contains(all.headline(), "Training diverged in single, sync, local: ")) << all.headline();
  ToldRun fault({1});
  fault.train("single", 1, 0.2).train("sync", 1, 0.3).train("local", 1, 0.3).check(1, false);
  EXPECT_TRUE(contains(fault.headline(), "this is a fault"));
}

TEST(ReportVerdict, SaysWhatIsMissing) {
  ToldRun run({1, 2});
  run.train("single", 1, 0.2);
  run.metrics << R"({"kind":"step","arm":"sync","batch":16,"seed":1,"epoch":1,"step":3,"loss":2})"
              << "\n";
  run.metrics << R"({"kind":"epoch","arm":"sync","ba)";  // the pen dropped here
  const Verdict verdict = run.verdict("running");
  EXPECT_TRUE(contains(verdict.unfinished, "1 of 6 trainings are complete; sync with seed 1 came to epoch 0 of 1"))
      << verdict.unfinished;
  EXPECT_TRUE(contains(verdict.headline, "Test error after the only epoch: single 20.0 %")) << verdict.headline;
  EXPECT_TRUE(contains(report_html(run.record("running")), "class=\"notice\""));
  EXPECT_TRUE(contains(ToldRun({1}).verdict("running").headline, "nothing to compare yet"));
}

}  // namespace
}  // namespace syncbn::train
