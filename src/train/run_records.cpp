// SPDX-License-Identifier: MIT
// The texts of metrics.jsonl, run.json and summary.csv.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <ctime>

#include <nlohmann/json.hpp>

#include "collectives.hpp"
#include "run_folder.hpp"
#include "step_costs.hpp"
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

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

Json arguments_json(const RunDescription& run) {
  const TrainingOptions& training = run.options.training;
  Json arms = Json::array();
  for (const Arm& arm : run.options.arms) arms.push_back(arm.name());
  return {{"data", run.data},
          {"network", training.network},
          {"epochs", training.epochs},
          {"batches", run.options.batches},
          {"shard", training.sharding.name()},
          {"lr", training.sgd.learning_rate},
          {"schedule", name_of(training.sgd.schedule)},
          {"warmup", training.sgd.warmup_steps},
          {"milestones", training.sgd.milestones},
          {"lr_gamma", training.sgd.lr_gamma},
          {"momentum", training.sgd.momentum},
          {"weight_decay", training.sgd.weight_decay},
          {"precise_bn", training.evaluation.is_precise},
          {"arms", arms},
          {"ranks", run.options.ranks},
          {"seeds", run.options.seeds}};
}

/// What one arm does with one batch.
Json share_json(const RunDescription& run, const ArmOnRanks& what, Index batch) {
  const ShareSizes rank = samples_per_rank(what.arm, batch, what.ranks);
  const ShareSizes norm = samples_per_norm(what.arm, batch, what.ranks);
  return {{"arm", what.arm.name()},
          {"ranks", what.ranks},
          {"batch", batch},
          {"lr", training_of(run.options, batch, 0).sgd.learning_rate},
          {"rank_batch_min", rank.smallest},
          {"rank_batch_max", rank.largest},
          {"norm_batch_min", norm.smallest},
          {"norm_batch_max", norm.largest}};
}

Json places_json(const RankPlaces& places) {
  Json hosts = Json::array();
  for (const HostPlaces& host : places.hosts) {
    hosts.push_back({{"name", host.name}, {"ranks", host.ranks}, {"cores", host.cores}});
  }
  Json binding = Json::array();
  for (std::size_t rank = 0; rank < places.cores.size(); ++rank) {
    binding.push_back({{"host", places.host_of[rank]}, {"cores", places.cores[rank]}});
  }
  return {{"hosts", hosts}, {"binding", binding}};
}

Json description_json(const RunDescription& run, const char* state) {
  Json shares = Json::array();
  for (const Index batch : run.options.batches) {
    for (const ArmOnRanks& what : arms_on_ranks(run.options.arms, run.options.ranks)) {
      shares.push_back(share_json(run, what, batch));
    }
  }
  const Json places = places_json(run.places);
  return {{"format", 1},
          {"state", state},
          {"command", run.command},
          {"command_line", run.command_line},
          {"started", run.started},
          {"arguments", arguments_json(run)},
          {"data",
           {{"name", run.data},
            {"train_count", run.train_count},
            {"test_count", run.test_count},
            {"height", run.image.height},
            {"width", run.image.width}}},
          {"ranks", run.ranks},
          {"shares", shares},
          {"hosts", places["hosts"]},
          {"binding", places["binding"]},
          {"versions", {{"syncbn", SYNCBN_VERSION}, {"mpi", mpi_library()}, {"compiler", __VERSION__}}}};
}

/// Those that were evaluated.
void add_accuracies(const OtherAccuracies& others, Json& json) {
  const auto add = [&json](const char* key, double accuracy) {
    if (std::isfinite(accuracy)) json[key] = accuracy;
  };
  add("mean_statistics_accuracy", others.mean_statistics);
  add("worst_rank_accuracy", others.worst_rank);
  add("best_rank_accuracy", others.best_rank);
  add("precise_bn_accuracy", others.precise);
}

Json costs_json(const StepCosts& costs) {
  return {{"statistics_seconds", costs.statistics_seconds},
          {"message_seconds", costs.message_seconds},
          {"element_seconds", costs.element_seconds},
          {"rest_seconds", costs.rest_seconds},
          {"message_bytes", std::llround(costs.message_bytes)}};
}

void add_costs(const StepCosts& costs, Json& json) {
  if (costs.are_known()) json["step_costs"] = costs_json(costs);
}

StepCosts median_costs(const TrainingResult& result) {
  std::vector<StepCosts> costs;
  for (const EpochRecord& epoch : result.epochs) costs.push_back(epoch.costs);
  return median_of(costs);
}

Json id_json(const char* kind, const TrainingId& id) {
  return {{"kind", kind}, {"arm", id.label}, {"ranks", id.ranks}, {"batch", id.batch}, {"seed", id.seed}};
}

Json result_json(const TrainingResult& result) {
  Json json{{"steps", result.step_losses.size()},    {"train_loss", last_train_loss(result)},
            {"test_accuracy", result.test_accuracy}, {"seconds", result.seconds},
            {"diverged", result.diverged},           {"weights_hash", hex_of(result.weights_hash)}};
  add_costs(median_costs(result), json);
  return json;
}

Json difference_json(const Difference& difference) {
  return {{"same_bits", difference.same_bits},
          {"max_weight_difference", difference.weights},
          {"max_loss_difference", difference.loss},
          {"max_early_loss_difference", difference.early_loss}};
}

Json check_json(const SyncCheck& check) {
  const std::string& base = check.from.label;  // "single", or "sync" on other ranks
  Json json{{"ranks", check.ranks}, {"batch", check.batch}, {"seed", check.seed}, {"passed", check.has_passed}};
  json["sync_from_" + base] = difference_json(check.sync);
  if (check.control) json["control_from_" + base] = difference_json(*check.control);
  if (base == "sync") json["from_ranks"] = check.from.ranks;
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

RunDescription describe_run(const std::string& command, const std::string& command_line, const DataSet& data,
                            const ComparisonOptions& options, MPI_Comm comm) {
  const Index ranks = size_of(comm);
  ComparisonOptions complete = options;
  complete.ranks = rank_counts(options, comm);
  const std::string launcher = ranks > 1 ? "mpirun -n " + std::to_string(ranks) + " " : "";
  return {command, launcher + command_line,  data.name, data.train.count, data.test.count, data.train.shape, complete,
          ranks,   gather_rank_places(comm), now_utc()};
}

std::string step_line(const TrainingId& id, const StepRecord& record) {
  Json json = id_json("step", id);
  json.update({{"epoch", record.epoch}, {"step", record.step}, {"loss", record.loss}});
  return text_of(json, -1);
}

std::string drift_line(const TrainingId& id, const StepRecord& record) {
  Json layers = Json::array();
  Json drifts = Json::array();
  for (const LayerDrift& drift : record.drifts) {
    layers.push_back(drift.layer);
    drifts.push_back(drift.mean_drift);  // null for NaN
  }
  Json json = id_json("drift", id);
  json.update({{"epoch", record.epoch}, {"step", record.step}, {"layers", layers}, {"mean_drift", drifts}});
  return text_of(json, -1);
}

std::string epoch_line(const TrainingId& id, const EpochRecord& record) {
  Json json = id_json("epoch", id);
  json.update({{"epoch", record.epoch},
               {"train_loss", record.train_loss},
               {"test_accuracy", record.test_accuracy},
               {"seconds", record.seconds},
               {"step_seconds", record.step_seconds}});
  add_accuracies(record.others, json);
  add_costs(record.costs, json);
  return text_of(json, -1);
}

std::string end_line(const TrainingId& id, const TrainingResult& result) {
  Json json = id_json("end", id);
  json.update(result_json(result));
  return text_of(json, -1);
}

std::string check_line(const SyncCheck& check) {
  Json json{{"kind", "check"}};
  json.update(check_json(check));
  return text_of(json, -1);
}

std::string run_json(const RunDescription& run) { return text_of(description_json(run, "running"), 2) + "\n"; }

std::string run_json(const RunDescription& run, const Comparison& comparison) {
  Json json = description_json(run, "finished");
  json["finished"] = now_utc();
  json["results"] = Json::array();
  for (const ArmRun& arm_run : comparison.runs) {
    const TrainingId id = arm_run.id();
    Json result{{"arm", id.label}, {"ranks", id.ranks}, {"batch", id.batch}, {"seed", id.seed}};
    result.update(result_json(arm_run.result));
    json["results"].push_back(result);
  }
  if (!comparison.checks.empty()) {
    json["checks"] = Json::array();
    for (const SyncCheck& check : comparison.checks) json["checks"].push_back(check_json(check));
  }
  return text_of(json, 2) + "\n";
}

std::string summary_csv(const Comparison& comparison) {
  std::string csv =
      "arm,seed,ranks,batch,rank_batch_min,rank_batch_max,norm_batch_min,norm_batch_max,epochs,steps,train_loss,"
      "test_accuracy,seconds,diverged,weights_hash,max_weight_difference,max_loss_difference\n";
  for (const ArmRun& arm_run : comparison.runs) {
    const Index batch = arm_run.batch;
    const ShareSizes rank = samples_per_rank(arm_run.arm, batch, arm_run.ranks);
    const ShareSizes norm = samples_per_norm(arm_run.arm, batch, arm_run.ranks);
    const TrainingResult& result = arm_run.result;
    csv += arm_run.arm.name();
    append_cell(csv, std::to_string(arm_run.seed));
    for (const Index value :
         {arm_run.ranks, batch, rank.smallest, rank.largest, norm.smallest, norm.largest,
          static_cast<Index>(result.epochs.size()), static_cast<Index>(result.step_losses.size())}) {
      append_cell(csv, std::to_string(value));
    }
    append_cell(csv, number(last_train_loss(result)));
    append_cell(csv, number(result.test_accuracy));
    append_cell(csv, number(result.seconds));
    append_cell(csv, result.diverged ? "1" : "0");
    append_cell(csv, hex_of(result.weights_hash));
    const auto check = std::find_if(comparison.checks.begin(), comparison.checks.end(), [&](const SyncCheck& c) {
      return c.seed == arm_run.seed && c.batch == batch && c.ranks == arm_run.ranks;
    });
    const bool has_check = arm_run.arm.kind == Arm::Kind::sync && check != comparison.checks.end();
    append_cell(csv, has_check ? number(check->sync.weights) : "");
    append_cell(csv, has_check ? number(check->sync.loss) : "");
    csv += '\n';
  }
  return csv;
}

}  // namespace syncbn::train
