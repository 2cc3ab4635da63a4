// SPDX-License-Identifier: MIT
// What the report makes of a run's files: numbers, the page, and the files that it refuses.
#include <cmath>
#include <sstream>

#include <gtest/gtest.h>

#include "told_run.hpp"
#include "train/errors.hpp"
#include "train/report_chart.hpp"
#include "train/report_page.hpp"
#include "train/report_text.hpp"

namespace syncbn::train {
namespace {

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

TEST(ReportChart, HasNoEpochsThatThereWereNot) {
  LineChart chart;
  chart.id = "c";
  chart.series.push_back({"arm-sync", {{1, 20, 19, 21, ""}}});
  const std::string svg = svg_of(chart);
  EXPECT_TRUE(contains(svg, ">1</text>"));
  EXPECT_FALSE(contains(svg, ">0</text>"));
  EXPECT_FALSE(contains(svg, ">2</text>"));
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
  EXPECT_EQ(duration(0.000341), "0.341 ms");
  EXPECT_EQ(duration(1.5), "1.50 s");
  EXPECT_EQ(bytes_text(1), "1 byte");
  EXPECT_EQ(bytes_text(999), "999 bytes");
  EXPECT_EQ(bytes_text(20352), "20.4 kB");
  EXPECT_EQ(bytes_text(1250000), "1.25 MB");
  EXPECT_EQ(bytes_text(kUnknown), "-");
}

}  // namespace
}  // namespace syncbn::train
