// SPDX-License-Identifier: MIT
// The texts of metrics.jsonl, run.json and summary.csv.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "run_folder.hpp"
#include "syncbn/version.hpp"

namespace syncbn::train {

namespace {

using Json = nlohmann::ordered_json;

/// A path need not be UTF-8, JSON must be.
std::string text_of(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

std::string number(double value) {
  if (!std::isfinite(value)) return "";
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.9g", value);
  return text.data();
}

void append_cell(std::string& row, const std::string& cell) {
  row += ',';
  row += cell;
}

std::string mpi_library() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string version = text.data();
  return version.substr(0, version.find_first_of("\n,"));
}

double last_train_loss(const TrainingResult& result) {
  return result.epochs.empty() ? std::nan("") : result.epochs.back().train_loss;
}

Json arguments_json(const RunDescription& run) {
  const SgdOptions& sgd = run.training.sgd;
  Json arms = Json::array();
  for (const Arm& arm : run.arms) arms.push_back(arm.name());
  return {{"data", run.data},
          {"network", run.training.network},
          {"epochs", run.training.epochs},
          {"batch", run.training.batch},
          {"lr", sgd.learning_rate},
          {"schedule", name_of(sgd.schedule)},
          {"warmup", sgd.warmup_steps},
          {"milestones", sgd.milestones},
          {"lr_gamma", sgd.lr_gamma},
          {"momentum", sgd.momentum},
          {"weight_decay", sgd.weight_decay},
          {"arms", arms},
          {"seeds", run.seeds}};
}

Json difference_json(const Difference& difference) {
  return {{"same_bits", difference.same_bits},
          {"max_weight_difference", difference.weights},
          {"max_loss_difference", difference.loss},
          {"max_early_loss_difference", difference.early_loss}};
}

Json check_json(const SyncCheck& check) {
  Json json{{"seed", check.seed}, {"passed", check.has_passed}, {"sync_from_single", difference_json(check.sync)}};
  if (check.control) json["control_from_single"] = difference_json(*check.control);
  return json;
}

}  // namespace

std::string hex_of(std::uint64_t hash) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%016llx", static_cast<unsigned long long>(hash));
  return text.data();
}

bool is_recorded(const StepRecord& record) {
  const Index stride = std::max<Index>(1, record.steps / 400);
  return record.step == 1 || record.step % stride == 0;
}

std::string step_line(const std::string& label, std::uint64_t seed, const StepRecord& record) {
  return text_of({{"kind", "step"},
                  {"arm", label},
                  {"seed", seed},
                  {"epoch", record.epoch},
                  {"step", record.step},
                  {"loss", record.loss}},
                 -1);
}

std::string epoch_line(const std::string& label, std::uint64_t seed, const EpochRecord& record) {
  return text_of({{"kind", "epoch"},
                  {"arm", label},
                  {"seed", seed},
                  {"epoch", record.epoch},
                  {"train_loss", record.train_loss},
                  {"test_accuracy", record.test_accuracy},
                  {"seconds", record.seconds}},
                 -1);
}

std::string run_json(const RunDescription& run, const Comparison& comparison) {
  Json results = Json::array();
  for (const ArmRun& arm_run : comparison.runs) {
    results.push_back({{"arm", arm_run.arm.name()},
                       {"seed", arm_run.seed},
                       {"train_loss", last_train_loss(arm_run.result)},
                       {"test_accuracy", arm_run.result.test_accuracy},
                       {"seconds", arm_run.result.seconds},
                       {"diverged", arm_run.result.diverged},
                       {"weights_hash", hex_of(arm_run.result.weights_hash)}});
  }
  Json json{{"command", run.command},
            {"arguments", arguments_json(run)},
            {"ranks", run.ranks},
            {"versions", {{"syncbn", SYNCBN_VERSION}, {"mpi", mpi_library()}, {"compiler", __VERSION__}}},
            {"results", results}};
  if (!comparison.checks.empty()) {
    json["checks"] = Json::array();
    for (const SyncCheck& check : comparison.checks) json["checks"].push_back(check_json(check));
  }
  return text_of(json, 2) + "\n";
}

std::string summary_csv(const RunDescription& run, const Comparison& comparison) {
  std::string csv =
      "arm,seed,ranks,batch,rank_batch_min,rank_batch_max,norm_batch_min,norm_batch_max,epochs,steps,train_loss,"
      "test_accuracy,seconds,diverged,weights_hash,max_weight_difference,max_loss_difference\n";
  for (const ArmRun& arm_run : comparison.runs) {
    const Index batch = run.training.batch;
    const ShareSizes rank = samples_per_rank(arm_run.arm, batch, run.ranks);
    const ShareSizes norm = samples_per_norm(arm_run.arm, batch, run.ranks);
    const TrainingResult& result = arm_run.result;
    csv += arm_run.arm.name();
    append_cell(csv, std::to_string(arm_run.seed));
    for (const Index value :
         {run.ranks, batch, rank.smallest, rank.largest, norm.smallest, norm.largest,
          static_cast<Index>(result.epochs.size()), static_cast<Index>(result.step_losses.size())}) {
      append_cell(csv, std::to_string(value));
    }
    append_cell(csv, number(last_train_loss(result)));
    append_cell(csv, number(result.test_accuracy));
    append_cell(csv, number(result.seconds));
    append_cell(csv, result.diverged ? "1" : "0");
    append_cell(csv, hex_of(result.weights_hash));
    const auto check = std::find_if(comparison.checks.begin(), comparison.checks.end(),
                                    [&](const SyncCheck& c) { return c.seed == arm_run.seed; });
    const bool has_check = arm_run.arm.kind == Arm::Kind::sync && check != comparison.checks.end();
    append_cell(csv, has_check ? number(check->sync.weights) : "");
    append_cell(csv, has_check ? number(check->sync.loss) : "");
    csv += '\n';
  }
  return csv;
}

}  // namespace syncbn::train
