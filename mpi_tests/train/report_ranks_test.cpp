// SPDX-License-Identifier: MIT
// What the report makes of a run whose arms were trained on several numbers of ranks.
#include <algorithm>
#include <sstream>

#include <gtest/gtest.h>

#include "train/errors.hpp"
#include "train/report_page.hpp"

namespace syncbn::train {
namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// A run with these batches and numbers of ranks, told by hand: two seeds, an epoch a training.
class ToldRun {
 public:
  ToldRun(std::vector<Index> batches, std::vector<Index> rank_counts)
      : batches_(std::move(batches)), rank_counts_(std::move(rank_counts)) {}

  ToldRun& train(const std::string& arm, Index ranks, Index batch, double error) {
    for (const char* seed : {"1", "2"}) {
      std::ostringstream head;
      head << R"(,"arm":")" << arm << R"(","ranks":)" << ranks << R"(,"batch":)" << batch << R"(,"seed":)" << seed;
      metrics
          << R"({"kind":"epoch")" << head.str() << R"(,"epoch":1,"test_accuracy":)" << 1 - error
          << R"(,"step_seconds":0.001,"step_costs":{"statistics_seconds":0,"message_seconds":0,"element_seconds":0,)"
          << R"("rest_seconds":0.001,"message_bytes":)" << 100 * ranks << "}}\n"
          << R"({"kind":"end")" << head.str() << R"(,"weights_hash":"hash-)" << arm << ranks << "\"}\n";
    }
    return *this;
  }
  ToldRun& check(Index ranks, const std::string& from, bool has_passed = true) {
    for (const char* seed : {"1", "2"}) {
      metrics << R"({"kind":"check","ranks":)" << ranks << R"(,"batch":)" << batches_[0] << R"(,"seed":)" << seed
              << R"(,"passed":)" << (has_passed ? "true" : "false") << R"(,"sync_from_)" << from << R"(":{"same_bits":)"
              << (has_passed ? "true" : "false") << R"(,"max_weight_difference":0,"max_loss_difference":0},)"
              << R"("from_ranks":)" << rank_counts_[0] << "}\n";
    }
    return *this;
  }
  ToldRun& drift(Index ranks) {
    metrics << R"({"kind":"drift","arm":"sync","ranks":)" << ranks << R"(,"batch":)" << batches_[0]
            << R"(,"seed":1,"epoch":1,"step":1,"layers":["bn1"],"mean_drift":[0.5]})"
            << "\n";
    return *this;
  }

  RunRecord record() const {
    std::istringstream lines(metrics.str());
    return parse_run("DIR", json(), lines);
  }
  Verdict verdict() const {
    const RunRecord run = record();
    return verdict_of(run, figures_of(run));
  }
  std::string page() const { return report_html(record()); }

  std::string json() const {
    std::ostringstream text;
    text << R"({"state":")" << state << R"(","command":"compare","ranks":8,"arguments":{"epochs":1,"batches":)"
         << list(batches_) << R"(,"ranks":)" << list(rank_counts_)
         << R"(,"arms":["single","sync","local"],"seeds":[1,2]},"shares":[)";
    bool is_first = true;
    for (const Index batch : batches_) {
      for (const Index ranks : rank_counts_) {
        const Index samples = batch / std::max<Index>(1, ranks);
        for (const char* arm : {"sync", "local"}) {
          text << (is_first ? "" : ",") << R"({"arm":")" << arm << R"(","ranks":)" << ranks << R"(,"batch":)" << batch
               << R"(,"rank_batch_min":)" << samples << R"(,"rank_batch_max":)" << samples << "}";
          is_first = false;
        }
      }
    }
    return text.str() + "]}";
  }

  std::ostringstream metrics;
  std::string state = "finished";

 private:
  static std::string list(const std::vector<Index>& numbers) {
    std::ostringstream text;
    text << '[';
    for (std::size_t i = 0; i < numbers.size(); ++i) text << (i > 0 ? "," : "") << numbers[i];
    text << ']';
    return text.str();
  }

  std::vector<Index> batches_;
  std::vector<Index> rank_counts_;
};

/// Local gets worse with the number of ranks.
ToldRun run_on_1_2_and_8() {
  ToldRun run({16}, {1, 2, 8});
  run.train("single", 1, 16, 0.2);
  for (const Index ranks : {1, 2, 8}) {
    run.train("sync", ranks, 16, 0.2).train("local", ranks, 16, ranks == 8 ? 0.5 : 0.2).check(ranks, "single");
  }
  return run;
}

bool mentions(const Verdict& verdict, const std::string& part) {
  for (const std::string& sentence : verdict.details) {
    if (contains(sentence, part)) return true;
  }
  return false;
}

TEST(ReportOnRanks, SpeaksOfSamplesPerProcess) {
  const Verdict verdict = run_on_1_2_and_8().verdict();
  EXPECT_EQ(verdict.headline,
            "Local batch norm costs you 30.0 points at 2 samples per process and makes no difference that the seeds "
            "can show at 8 (test error, compared with sync).");
  EXPECT_TRUE(mentions(verdict,
                       "Sync on 1, 2 and 8 ranks trained like the full batch in one process, to the last bit of every "
                       "weight, with every seed."));
  EXPECT_EQ(verdict.unfinished, "");
}

TEST(ReportOnRanks, HasOneCaseIfOneNumberIsMoreThanOneRank) {
  ToldRun run({16}, {1, 8});
  run.train("sync", 1, 16, 0.2).train("sync", 8, 16, 0.2).train("local", 1, 16, 0.2).train("local", 8, 16, 0.5);
  EXPECT_TRUE(
      contains(run.verdict().headline, "With 2 samples per process, local batch norm costs you 30.0 points here"));
}

TEST(ReportOnRanks, TellsCasesOfAsManySamplesApart) {
  ToldRun run({32, 16}, {4, 2});
  for (const Index batch : {32, 16}) {
    for (const Index ranks : {4, 2}) {
      run.train("sync", ranks, batch, 0.2).train("local", ranks, batch, 0.2 + 0.01 * static_cast<double>(ranks));
    }
  }
  EXPECT_EQ(
      run.verdict().headline,
      "Local batch norm costs you 4.0 points at 4 samples per process, costs you 2.0 points at 8 on 2 ranks, costs "
      "you 4.0 points at 8 on 4 ranks and costs you 2.0 points at 16 (test error, compared with sync).");
}

TEST(ReportOnRanks, HasAColumnAndAllPoints) {
  ToldRun run = run_on_1_2_and_8();
  run.drift(2).drift(8);
  const std::string page = run.page();
  for (const char* words :
       {"<th scope=\"col\">ranks</th>", "<th scope=\"row\">local</th><td>8</td>",
        "<th scope=\"row\">single</th><td>1</td>",
        "Sync minus single = 0 on 1, 2 and 8 ranks, in every weight and loss.", "<code>hash-sync8</code>",
        "<code>hash-single1</code>", "id=\"curve16r8", "id=\"drift16r2", "Drift by layer and step, 8 ranks",
        "Sync, 8 ranks, seed 1", "sync, 8 ranks, n = 2, rest: 1.000 ms", "single, 1 rank, n = 16, rest: 1.000 ms",
        "local, 2 samples per process, 8 ranks: 50.0 %", "local, 8 samples per process, 2 ranks: 20.0 %",
        "single, global batch 16: 20.0 %", "<dd>1, 2, 8 of 8</dd>", "samples per process, n (logarithmic)",
        "<td>800 bytes</td>"}) {
    EXPECT_TRUE(contains(page, words)) << words;
  }
}

TEST(ReportOnRanks, HasALinePerBatchToo) {
  ToldRun run({32, 16}, {4, 2});
  for (const Index batch : {32, 16}) {
    for (const Index ranks : {4, 2}) run.train("local", ranks, batch, 0.2);
  }
  const std::string page = run.page();
  const std::size_t chart = page.find("id=\"final");
  ASSERT_NE(chart, std::string::npos);
  const std::string svg = page.substr(chart, page.find("</svg>", chart) - chart);
  std::size_t lines = 0;
  for (std::size_t found = svg.find("class=\"line\""); found != std::string::npos;
       found = svg.find("class=\"line\"", found + 1)) {
    ++lines;
  }
  EXPECT_EQ(lines, 2u);
  EXPECT_TRUE(contains(page, "A line is an arm with one global batch (32 and 16)."));
}

// Ranks that wait sleep: only those that train take each other's cores.
TEST(ReportOnRanks, CountsCoresOfThoseThatTrain) {
  const auto shares_cores = [](const std::vector<Index>& rank_counts) {
    ToldRun run({16}, rank_counts);
    std::string json = run.json();
    json.pop_back();
    json += R"(,"hosts":[{"name":"a","ranks":4,"cores":2},{"name":"b","ranks":4,"cores":4}],"binding":[{"host":"a"})";
    for (const char* host : {"b", "a", "b", "a", "b", "a", "b"}) json += std::string(R"(,{"host":")") + host + R"("})";
    std::istringstream none;
    return parse_run("DIR", json + "]}", none).shares_cores;
  };
  EXPECT_FALSE(shares_cores({1, 4}));
  EXPECT_TRUE(shares_cores({1, 5}));
  EXPECT_TRUE(shares_cores({8}));
}

TEST(ReportOnRanks, SaysWhatIsMissing) {
  ToldRun run({16}, {2, 8});
  run.state = "running";
  run.train("single", 1, 16, 0.2).train("sync", 2, 16, 0.2);
  run.metrics << R"({"kind":"step","arm":"local","ranks":8,"batch":16,"seed":1,"epoch":1,"step":3,"loss":2})"
              << "\n"
              << R"({"kind":"step","arm":"local","ra)";  // cut off
  EXPECT_TRUE(contains(run.verdict().unfinished,
                       "4 of 10 trainings are complete; local with seed 1 on 8 ranks came to epoch 0 of 1"))
      << run.verdict().unfinished;
}

TEST(ReportOnRanks, CallsAHashThatDependsOnThemAFault) {
  ToldRun alone({16}, {2, 8});
  alone.train("sync", 2, 16, 0.2).train("sync", 8, 16, 0.2).check(8, "sync");
  EXPECT_TRUE(mentions(alone.verdict(), "Sync on 8 ranks trained like sync on 2 ranks, to the last bit"));
  EXPECT_TRUE(contains(alone.page(), "Sync minus sync on 2 ranks = 0 on 8 ranks"));
  alone.check(8, "sync", false);
  EXPECT_EQ(alone.verdict().headline,
            "Synchronized batch norm did not train the same on all numbers of ranks: this is a fault.");
  ToldRun run = run_on_1_2_and_8();
  run.check(8, "single", false);
  EXPECT_TRUE(contains(run.verdict().headline, "did not train like the full batch: this is a fault"));
  EXPECT_FALSE(contains(run.page(), "= 0 on"));
}

TEST(ReportOnRanks, TakesOneNumberForAllLines) {
  std::istringstream lines(
      "{\"kind\":\"end\",\"arm\":\"sync\",\"batch\":16,\"seed\":1}\n"
      "{\"kind\":\"end\",\"arm\":\"sync\",\"ranks\":3,\"batch\":16,\"seed\":1}\n");
  const RunRecord run =
      parse_run("DIR", R"({"ranks":4,"arguments":{"batches":[16],"arms":["sync"],"seeds":[1]}})", lines);
  ASSERT_EQ(run.trainings.size(), 1u);
  EXPECT_EQ(run.trainings[0].id.ranks, 4);
  EXPECT_EQ(run.rank_counts, std::vector<Index>{4});
}

TEST(ReportOnRanks, RefusesOthers) {
  const auto refused = [](const ToldRun& run, const std::string& words) {
    try {
      run.record();
      FAIL() << "accepted, wanted a complaint about " << words;
    } catch (const DataError& error) {
      EXPECT_TRUE(contains(error.what(), words)) << error.what();
    }
  };
  for (const Index wrong : {0, 3, 16}) {
    refused(std::move(ToldRun({16}, {2, 8}).train("sync", wrong, 16, 0.2)), "\"ranks\" is not a number of ranks that");
    refused(std::move(ToldRun({16}, {2, 8}).check(wrong, "single")), "\"ranks\" is not a number of ranks that");
    refused(std::move(ToldRun({16}, {2, 8}).train("single", wrong, 16, 0.2)),
            "\"ranks\" is not a number of ranks that");
  }
  refused(ToldRun({16}, {2, 9}), "\"ranks\" is not a list of numbers from 1 to the ranks of the run");
  refused(ToldRun({16}, {0}), "\"ranks\" is not a list of numbers from 1");
}

}  // namespace
}  // namespace syncbn::train
