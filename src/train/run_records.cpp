// SPDX-License-Identifier: MIT
// The texts of metrics.jsonl, run.json and summary.csv.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "collectives.hpp"
#include "record_json.hpp"
#include "report_summary.hpp"
#include "run_folder.hpp"

namespace syncbn::train {

namespace {

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

Json id_json(const char* kind, const TrainingId& id) {
  return {{"kind", kind}, {"arm", id.label}, {"ranks", id.ranks}, {"batch", id.batch}, {"seed", id.seed}};
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

Json state_json(const RunDescription& run, const RunState& state) {
  if (state.kind == RunState::Kind::running) return description_json(run, "running");
  const bool has_failed = state.kind == RunState::Kind::failed;
  Json json = description_json(run, has_failed ? "failed" : "stopped");
  json["ended"] = now_utc();
  json["steps_done"] = state.steps_done;
  if (has_failed) json["error"] = state.error;
  return json;
}

Json epoch_json(const EpochRecord& record) {
  Json json{{"epoch", record.epoch},
            {"train_loss", record.train_loss},
            {"test_accuracy", record.test_accuracy},
            {"seconds", record.seconds},
            {"step_seconds", record.step_seconds}};
  add_accuracies(record.others, json);
  add_costs(record.costs, json);
  return json;
}

/// The last columns of summary.csv; NaN for what there is not.
std::array<double, 8> final_numbers(const TrainingResult& result) {
  const auto median_of_last = [&result](std::size_t count, const auto& number) {
    std::vector<double> values;
    const std::size_t all = result.epochs.size();
    for (std::size_t i = all - std::min(all, count); i < all; ++i) values.push_back(number(result.epochs[i]));
    const Spread spread = spread_of(values);
    return spread.count > 0 ? spread.median : std::nan("");
  };
  const auto final_error = [&](const auto& accuracy) {
    return result.diverged ? std::nan("") : 1 - median_of_last(kFinalEpochs, accuracy);
  };
  return {median_of_last(kFinalEpochs, [](const EpochRecord& epoch) { return epoch.train_loss; }),
          final_error([](const EpochRecord& epoch) { return epoch.test_accuracy; }),
          median_of_last(result.epochs.size(), [](const EpochRecord& epoch) { return epoch.step_seconds; }),
          final_error([](const EpochRecord& epoch) { return epoch.others.mean_statistics; }),
          final_error([](const EpochRecord& epoch) { return epoch.others.best_rank; }),
          final_error([](const EpochRecord& epoch) { return epoch.others.worst_rank; }),
          final_error([](const EpochRecord& epoch) { return epoch.others.precise; }),
          final_error([](const EpochRecord& epoch) { return epoch.others.train_mode; })};
}

/// Of a run that is one training. With the learning rates of each epoch's first and last step.
Json epochs_json(const RunDescription& run, const std::vector<EpochRecord>& epochs) {
  const TrainingOptions& training = run.options.training;
  const Index steps_per_epoch = run.train_count / training.batch;
  const auto rate = [&](Index step) {
    return learning_rate(training.sgd, {step, steps_per_epoch * training.epochs, steps_per_epoch});
  };
  Json list = Json::array();
  for (const EpochRecord& record : epochs) {
    Json json = epoch_json(record);
    json["lr_first_step"] = rate((record.epoch - 1) * steps_per_epoch);
    json["lr_last_step"] = rate(record.epoch * steps_per_epoch - 1);
    list.push_back(json);
  }
  return list;
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
  Json means = Json::array();
  Json vars = Json::array();
  for (const LayerDrift& drift : record.drifts) {
    layers.push_back(drift.layer);
    means.push_back(drift.mean_drift);  // null for NaN
    vars.push_back(drift.var_drift);
  }
  Json json = id_json("drift", id);
  json.update(
      {{"epoch", record.epoch}, {"step", record.step}, {"layers", layers}, {"mean_drift", means}, {"var_drift", vars}});
  return text_of(json, -1);
}

std::string epoch_line(const TrainingId& id, const EpochRecord& record) {
  Json json = id_json("epoch", id);
  json.update(epoch_json(record));
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

std::string run_json(const RunDescription& run, const RunState& state) {
  return text_of(state_json(run, state), 2) + "\n";
}

std::string run_json(const RunDescription& run, const Comparison& comparison) {
  Json json = description_json(run, comparison.stopped ? "stopped" : "finished");
  json[comparison.stopped ? "ended" : "finished"] = now_utc();
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

std::string train_json(const RunDescription& run, const RunState& state, const std::vector<EpochRecord>& epochs) {
  Json json = state_json(run, state);
  json["epochs"] = epochs_json(run, epochs);
  return text_of(json, 2) + "\n";
}

std::string train_json(const RunDescription& run, const TrainingResult& result) {
  Json json = description_json(run, "finished");
  json["finished"] = now_utc();
  json["epochs"] = epochs_json(run, result.epochs);
  json["result"] = result_json(result);
  return text_of(json, 2) + "\n";
}

std::string summary_csv(const Comparison& comparison) {
  std::string csv =
      "arm,seed,ranks,batch,rank_batch_min,rank_batch_max,norm_batch_min,norm_batch_max,epochs,steps,train_loss,"
      "test_accuracy,seconds,diverged,weights_hash,max_weight_difference,max_loss_difference,final_train_loss,"
      "final_test_error,step_seconds,mean_statistics_error,best_rank_error,worst_rank_error,precise_bn_error,"
      "train_mode_error\n";
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
    for (const double value : final_numbers(result)) append_cell(csv, number(value));
    csv += '\n';
  }
  return csv;
}

}  // namespace syncbn::train
