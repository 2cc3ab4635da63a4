// SPDX-License-Identifier: MIT
// What the report makes of a run's files: numbers, verdict, and the files that it refuses.
#include <cmath>
#include <sstream>

#include <gtest/gtest.h>

#include "train/errors.hpp"
#include "train/report_chart.hpp"
#include "train/report_page.hpp"
#include "train/report_text.hpp"

namespace syncbn::train {
namespace {

/// A run of `ranks` ranks with one epoch per training, told by hand.
class ToldRun {
 public:
  explicit ToldRun(std::vector<std::uint64_t> seeds, Index cores = 4) : seeds_(std::move(seeds)), cores_(cores) {}

  ToldRun& train(const std::string& arm, std::uint64_t seed, double error, double step_seconds = 1e-3) {
    std::ostringstream head;
    head << R"(,"arm":")" << arm << R"(","batch":16,"seed":)" << seed;
    metrics << R"({"kind":"epoch")" << head.str() << R"(,"epoch":1,"train_loss":0.5,"test_accuracy":)" << 1 - error
            << R"(,"step_seconds":)" << step_seconds << "}\n"
            << R"({"kind":"end")" << head.str() << R"(,"diverged":false,"weights_hash":"00ff"})"
            << "\n";
    return *this;
  }
  /// An epoch more of that training, with these costs in milliseconds and bytes.
  ToldRun& cost(const std::string& arm, std::uint64_t seed, Index epoch, const std::vector<double>& costs) {
    metrics << R"({"kind":"epoch","arm":")" << arm << R"(","batch":16,"seed":)" << seed << R"(,"epoch":)" << epoch
            << R"(,"test_accuracy":0.5,"step_costs":{"statistics_seconds":)" << 1e-3 * costs[0]
            << R"(,"message_seconds":)" << 1e-3 * costs[1] << R"(,"element_seconds":)" << 1e-3 * costs[2]
            << R"(,"rest_seconds":)" << 1e-3 * costs[3] << R"(,"message_bytes":)" << costs[4] << "}}\n";
    return *this;
  }
  ToldRun& drift(Index step, const std::string& drifts, const std::string& layers = R"("bn1","b&n2")") {
    metrics << R"({"kind":"drift","arm":"sync","batch":16,"seed":1,"epoch":1,"step":)" << step << R"(,"layers":[)"
            << layers << R"(],"mean_drift":[)" << drifts << "]}\n";
    return *this;
  }
  ToldRun& diverge(const std::string& arm, std::uint64_t seed) {
    metrics << R"({"kind":"end","arm":")" << arm << R"(","batch":16,"seed":)" << seed << R"(,"diverged":true})"
            << "\n";
    return *this;
  }
  ToldRun& check(std::uint64_t seed, bool has_passed) {
    metrics << R"({"kind":"check","batch":16,"seed":)" << seed << R"(,"passed":)" << (has_passed ? "true" : "false")
            << R"(,"sync_from_single":{"same_bits":)" << (has_passed ? "true" : "false")
            << R"(,"max_weight_difference":0,"max_loss_difference":0}})"
            << "\n";
    return *this;
  }

  RunRecord record(const char* state = "finished") const {
    std::istringstream lines(metrics.str());
    return parse_run("DIR", json(state), lines);
  }
  Verdict verdict(const char* state = "finished") const {
    const RunRecord run = record(state);
    return verdict_of(run, figures_of(run));
  }
  std::string headline() const { return verdict().headline; }

  std::string json(const char* state) const {
    std::ostringstream text;
    text << R"({"state":")" << state << R"(","command":"compare","ranks":4,"arguments":{"epochs":1,"batches":[16],)"
         << (shard.empty() ? "" : R"("shard":")" + shard + R"(",)") << R"("arms":["single","sync","local"],"seeds":[)";
    for (std::size_t i = 0; i < seeds_.size(); ++i) text << (i > 0 ? "," : "") << seeds_[i];
    text << R"(]},"data":{"name":"<b>&\"x\"</b>"},"hosts":[{"name":"h","ranks":4,"cores":)" << cores_
         << R"(}],"shares":[{"arm":"local","batch":16,"rank_batch_min":4,"rank_batch_max":4,"norm_batch_min":4,)"
         << R"("norm_batch_max":4}]})";
    return text.str();
  }

  std::ostringstream metrics;
  std::string shard;  // empty: of a program that had no choice

 private:
  std::vector<std::uint64_t> seeds_;
  Index cores_;
};

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

bool mentions(const Verdict& verdict, const std::string& part) {
  for (const std::string& sentence : verdict.details) {
    if (contains(sentence, part)) return true;
  }
  return false;
}

TEST(ReportVerdict, SaysWhatLocalCosts) {
  ToldRun run({1, 2, 3});
  for (const std::uint64_t seed : {1, 2, 3}) {
    const double noise = 0.001 * static_cast<double>(seed);
    run.train("single", seed, 0.2 + noise).train("sync", seed, 0.2 + noise, 1.1e-3).train("local", seed, 0.3 + noise);
    run.check(seed, true);
  }
  const Verdict verdict = run.verdict();
  EXPECT_EQ(verdict.headline,
            "With 4 samples per process, local batch norm costs you 10.0 points here: 30.2 % test error against 20.2 % "
            "with sync. Synchronizing pays.");
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
  EXPECT_TRUE(mentions(verdict, "as far as these seeds can tell"));
  EXPECT_TRUE(mentions(verdict, "more ranks than cores"));
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
  EXPECT_TRUE(mentions(verdict, "25 % at 16 samples per process (2.50 ms against 2.00 ms); 25 % at 8 "));
  EXPECT_TRUE(mentions(verdict, "; a factor of 2.5 at 2 (2.50 ms against 1.00 ms)."));
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
            "Test error at the end, with samples handed out by class: sync 20.0 %.");
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
  EXPECT_TRUE(contains(verdict.headline, "Test error at the end: single 20.0 %")) << verdict.headline;
  EXPECT_TRUE(contains(report_html(run.record("running")), "class=\"notice\""));
  EXPECT_TRUE(contains(ToldRun({1}).verdict("running").headline, "nothing to compare yet"));
}

TEST(ReportNumbers, TakeTheMedianOfTheLastEpochs) {
  RecordedTraining training;
  for (const double error : {0.9, 0.5, 0.1, 0.4, 0.3}) {
    training.epochs.push_back({static_cast<Index>(training.epochs.size()) + 1, 0, error, 0});
  }
  EXPECT_EQ(final_error(training), 0.3);
  training.epochs.resize(2);
  EXPECT_DOUBLE_EQ(final_error(training), 0.7);
  training.epochs.clear();
  EXPECT_TRUE(std::isnan(final_error(training)));

  const Spread spread = spread_of({3, kUnknown, 1, 2});
  EXPECT_EQ(spread.count, 3);
  EXPECT_EQ(spread.median, 2);
  EXPECT_EQ(spread.smallest, 1);
  EXPECT_EQ(spread.largest, 3);
}

TEST(ReportNumbers, TakeAnEpochThatIsToldTwiceOnce) {
  ToldRun run({1});
  run.train("sync", 1, 0.5).train("sync", 1, 0.25);
  ASSERT_EQ(run.record().trainings.size(), 1u);
  ASSERT_EQ(run.record().trainings[0].epochs.size(), 1u);
  EXPECT_EQ(run.record().trainings[0].epochs[0].test_error, 0.25);
}

TEST(ReportFiles, AreRefusedWithOneSentence) {
  const auto refused = [](const std::string& json, const std::string& metrics, const std::string& words) {
    try {
      std::istringstream lines(metrics);
      parse_run("DIR", json, lines);
      FAIL() << "accepted, wanted a complaint about " << words;
    } catch (const DataError& error) {
      EXPECT_TRUE(contains(error.what(), words)) << error.what();
    }
  };
  const std::string good = ToldRun({1}).json("finished");
  refused("", "", "DIR/run.json is not JSON");
  refused("[1]", "", "DIR/run.json is not a JSON object");
  refused("{}", "", "\"ranks\" is not a number of ranks");
  refused(R"({"ranks":2})", "", "has no \"arguments\"");
  refused(R"({"ranks":-2})", "", "\"ranks\" is not a whole number");
  refused(R"({"ranks":2,"arguments":{"arms":["x"]}})", "", "there is no arm 'x'");
  refused(R"({"ranks":2,"arguments":{"arms":["sync"],"batches":[]}})", "", "\"batches\"");
  ToldRun other({1});
  other.shard = "dirichlet:0";
  refused(other.json("finished"), "", "\"shard\" is not a way to hand out samples: 'dirichlet:0' needs");
  refused(good, "\n", "metrics.jsonl, line 1 is not JSON");
  refused(good, "{}\n", "\"kind\"");
  refused(good, "[[]]\n", "line 1 is not a JSON object");
  refused(good,
          R"({"kind":"end","arm":"group:2","batch":16})"
          "\n",
          "\"arm\" is not an arm of run.json");
  refused(good,
          R"({"kind":"end","arm":"sync","batch":17})"
          "\n",
          "\"batch\" is not a batch of run.json");
  refused(good,
          R"({"kind":"epoch","arm":"sync","batch":16,"epoch":1,"test_accuracy":2})"
          "\n",
          "from 0.0 to 1.0");
  refused(good,
          R"({"kind":"epoch","arm":"sync","batch":16,"epoch":0})"
          "\n",
          "\"epoch\"");
  refused(good,
          R"({"kind":"epoch","arm":"sync","batch":16,"epoch":"1"})"
          "\n",
          "\"epoch\" is not a number");
  refused(good, "{\"kind\":\"end\",\"arm\":\"\xff\"}\n", "line 1 is not JSON");
  refused(good, std::string(100000, '[') + "\n", "line 1 is not JSON");
  refused(good, std::string(3000000, 'x') + "\n", "line 1 is not JSON");
}

TEST(ReportPage, IsSelfContainedAndEscapesWhatIsForeign) {
  ToldRun run({1});
  const std::string page = report_html(run.train("sync", 1, 0.2).train("local", 1, 0.3).record());
  EXPECT_FALSE(contains(page, "<b>&"));
  EXPECT_TRUE(contains(page, "&lt;b&gt;&amp;&quot;x&quot;&lt;/b&gt;"));
  for (const char* word : {"<script", "http:", "https:", "@import", "url(", "src=", "nan", "inf"}) {
    EXPECT_FALSE(contains(page, word)) << word;
  }
  EXPECT_EQ(escape("a<b>&\"'\n"), "a&lt;b&gt;&amp;&quot;&#39;\xEF\xBF\xBD");
}

TEST(ReportCosts, AreStackedAndInATable) {
  ToldRun run({1, 2});
  for (const std::uint64_t seed : {1, 2}) {
    run.train("sync", seed, 0.2).train("local", seed, 0.3);
    run.cost("sync", seed, 2, {0.1, 0.4, 0.05, 0.45, 20352}).cost("sync", seed, 3, {0.1, 99, 0.05, 0.45, 20352});
    run.cost("sync", seed, 4, {0.1, 0.4, 0.05, 0.45, 20352}).cost("local", seed, 2, {0.2, 0, 0.05, 0.25, 0});
  }
  const std::string page = report_html(run.record());
  for (const char* words :
       {"What a step costs", "<title>sync, message: 0.400 ms</title>", "<title>local, message: 0.000 ms</title>",
        "<title>sync, rest: 0.450 ms</title>", "<td>0.400<small>40 %</small></td>", "<td>1.000</td>",
        "<td>20.4 kB</td>", "<td>0 bytes</td>", "<td>0.500</td>", "sync, statistics: 0.100 ms"}) {
    EXPECT_TRUE(contains(page, words)) << words;
  }
  EXPECT_FALSE(contains(page, "nan"));
}

TEST(ReportCosts, AreNotThereInRunsOfEarlierVersions) {
  ToldRun run({1});
  const std::string page = report_html(run.train("sync", 1, 0.2).train("local", 1, 0.3).record());
  EXPECT_FALSE(contains(page, "What a step costs"));
  run.cost("sync", 1, 2, {0.1, 0.4, 0.05, 0.45, 8});  // of one arm only: the other has dashes
  const std::string half = report_html(run.record());
  EXPECT_TRUE(contains(half, "<td>-</td>"));
  EXPECT_FALSE(contains(half, "local, message"));
}

TEST(ReportDrift, IsAHeatMapAndATable) {
  ToldRun run({1});
  run.drift(5, "0.02,0.4").drift(15, "0.07,0.45").drift(25, "null,1.5").drift(35, "0.02,0.1");
  run.metrics << R"({"kind":"drift","arm":"sync","batch":16,"seed":1,"step":45,"layers":["bn1)";  // cut off
  const std::string page = report_html(run.record("running"));
  for (const char* words :
       {"How far local statistics would have been off", "class=\"cells heat0\"", "class=\"cells heat1\"",
        "class=\"cells heat2\"", "class=\"cells heat4\"", "class=\"cells heat7\"",
        "b&amp;n2: median 0.43, largest 1.50 at step 25", "bn1: median 0.02, largest 0.07 at step 15", "0.05 to 0.1",
        "1 or more", "<td>0.40</td><td>0.43</td><td>1.50</td><td>0.10</td>", "class=\"notice\""}) {
    EXPECT_TRUE(contains(page, words)) << words;
  }
  EXPECT_FALSE(contains(page, "cells heat3"));
  EXPECT_FALSE(contains(page, "nan"));
  EXPECT_FALSE(contains(report_html(ToldRun({1}).record()), "local statistics"));
}

TEST(ReportDrift, TakesAStepThatIsToldTwiceOnceAndOneStepToo) {
  ToldRun run({1});
  run.drift(5, "0.5,0.5").drift(15, "0.5,0.5").drift(5, "0.1,0.3");
  const RunRecord record = run.record();
  ASSERT_EQ(record.trainings.at(0).drifts.size(), 1u);
  EXPECT_EQ(record.trainings[0].drifts[0].mean_drifts, (std::vector<double>{0.1, 0.3}));
  EXPECT_TRUE(contains(report_html(record), "class=\"cells heat2\""));
}

TEST(ReportDrift, IsRefusedIfItIsNone) {
  const auto refused = [](ToldRun run, const std::string& words) {
    try {
      run.record();
      FAIL() << "accepted, wanted a complaint about " << words;
    } catch (const DataError& error) {
      EXPECT_TRUE(contains(error.what(), words)) << error.what();
    }
  };
  refused(std::move(ToldRun({1}).drift(1, "0.5")), "as many numbers as");
  refused(std::move(ToldRun({1}).drift(1, "", "")), "as many numbers as");
  refused(std::move(ToldRun({1}).drift(1, "-1,0")), "from 0.0 to");
  refused(std::move(ToldRun({1}).drift(1, "\"a\",0")), "from 0.0 to");
  refused(std::move(ToldRun({1}).drift(1, "1,1").drift(2, "1,1", R"("bn1","bn3")")), "those of the line before");
}

TEST(ReportChart, HasRoundTicks) {
  EXPECT_EQ(round_ticks(0, 10, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(round_ticks(22.9, 24.1, 4).front(), 23);
  EXPECT_TRUE(round_ticks(1, 1, 5).empty());
  EXPECT_TRUE(round_ticks(std::nan(""), 1, 5).empty());
  EXPECT_LE(round_ticks(1e17, std::nextafter(1e17, 2e17), 5).size(), 101u);
}

TEST(ReportText, HasUnitsAndSensibleDigits) {
  EXPECT_EQ(percent(0.2316), "23.2 %");
  EXPECT_EQ(percent(0.02316), "2.32 %");
  EXPECT_EQ(percent(kUnknown), "-");
  EXPECT_EQ(duration(0.00341), "3.41 ms");
  EXPECT_EQ(duration(0.0341), "34.1 ms");
  EXPECT_EQ(duration(1.5), "1.50 s");
  EXPECT_EQ(bytes_text(1), "1 byte");
  EXPECT_EQ(bytes_text(999), "999 bytes");
  EXPECT_EQ(bytes_text(20352), "20.4 kB");
  EXPECT_EQ(bytes_text(1250000), "1.25 MB");
  EXPECT_EQ(bytes_text(kUnknown), "-");
}

}  // namespace
}  // namespace syncbn::train
