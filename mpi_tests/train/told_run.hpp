// SPDX-License-Identifier: MIT
// A run of compare, told by hand.
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "train/report_summary.hpp"

namespace syncbn::train {

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
    text << R"({"state":")" << state << R"(","command":"compare","ranks":4,"arguments":{"epochs":)" << epochs
         << R"(,"batches":[16],)" << (shard.empty() ? "" : R"("shard":")" + shard + R"(",)") << R"("arms":[)" << arms
         << R"(],"seeds":[)";
    for (std::size_t i = 0; i < seeds_.size(); ++i) text << (i > 0 ? "," : "") << seeds_[i];
    text << R"(]},"data":{"name":"<b>&\"x\"</b>"},"hosts":[{"name":"h","ranks":4,"cores":)" << cores_
         << R"(}],"shares":[{"arm":"local","batch":16,"rank_batch_min":4,"rank_batch_max":4,"norm_batch_min":4,)"
         << R"("norm_batch_max":4}]})";
    return text.str();
  }

  std::ostringstream metrics;
  std::string shard;  // empty: of a program that had no choice
  std::string arms = R"("single","sync","local")";
  Index epochs = 1;

 private:
  std::vector<std::uint64_t> seeds_;
  Index cores_;
};

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

inline bool mentions(const Verdict& verdict, const std::string& part) {
  for (const std::string& sentence : verdict.details) {
    if (contains(sentence, part)) return true;
  }
  return false;
}

}  // namespace syncbn::train
