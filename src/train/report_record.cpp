// SPDX-License-Identifier: MIT
// Reads run.json and metrics.jsonl, trusting neither.
#include "report_record.hpp"

#include <algorithm>
#include <fstream>
#include <istream>
#include <map>
#include <optional>
#include <sstream>
#include <tuple>

#include "report_fields.hpp"
#include "report_text.hpp"

namespace syncbn::train {

namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaxLine = 1 << 20;  // ours have some 200 characters
constexpr std::size_t kMaxRunJson = 1 << 28;
constexpr double kHuge = 1e300;

std::string listed(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

template <class T>
std::string listed_numbers(const std::vector<T>& numbers) {
  std::vector<std::string> words;
  for (const T number : numbers) words.push_back(std::to_string(number));
  return listed(words);
}

std::string brief(double value) {
  std::ostringstream text;
  text << value;
  return std::isnan(value) ? "" : text.str();
}

void read_arguments(const Fields& arguments, RunRecord& run) {
  run.epochs = arguments.whole("epochs");
  run.arms = arguments.texts("arms");
  run.batches = arguments.wholes("batches");
  run.seeds = arguments.seeds("seeds");
  if (run.arms.empty()) arguments.refuse("arms", "a list with at least one arm");
  for (const std::string& arm : run.arms) {
    try {
      Arm::parse(arm);
    } catch (const UsageError& error) {
      arguments.refuse("arms", std::string("a list of arms: ") + error.what());
    }
  }
  if (run.batches.empty()) arguments.refuse("batches", "a list with at least one batch");
  run.rank_counts = arguments.has("ranks") ? arguments.wholes("ranks") : std::vector<Index>{run.ranks};
  const bool is_sound = std::all_of(run.rank_counts.begin(), run.rank_counts.end(),
                                    [&run](Index count) { return count >= 1 && count <= run.ranks; });
  if (!is_sound || run.rank_counts.empty()) {
    arguments.refuse("ranks", "a list of numbers from 1 to the ranks of the run, one at least");
  }
  if (!arguments.has("shard")) return;  // a run of a program that had no choice
  try {
    run.sharding = Sharding::parse(arguments.text("shard"));
  } catch (const UsageError& error) {
    arguments.refuse("shard", std::string("a way to hand out samples: ") + error.what());
  }
}

void read_shares(const Fields& json, RunRecord& run) {
  for (const Fields& share : json.objects("shares")) {
    run.shares.push_back({share.text("arm"), share.has("ranks") ? share.whole("ranks") : run.rank_counts.front(),
                          share.whole("batch"),
                          ShareSizes{share.whole("rank_batch_min"), share.whole("rank_batch_max")},
                          ShareSizes{share.whole("norm_batch_min"), share.whole("norm_batch_max")}});
  }
}

/// By host: how many of its ranks ever train. Empty if it is not known where ranks were.
std::map<std::string, Index> trainers_by_host(const Fields& json, const RunRecord& run) {
  const Index most = *std::max_element(run.rank_counts.begin(), run.rank_counts.end());
  std::map<std::string, Index> trainers;
  Index rank = 0;
  for (const Fields& place : json.objects("binding")) {
    Index& count = trainers[place.text("host")];
    if (rank++ < most) ++count;
  }
  return trainers;
}

void read_hosts(const Fields& json, RunRecord& run) {
  std::map<std::string, Index> trainers = trainers_by_host(json, run);
  std::vector<std::string> words;
  for (const Fields& host : json.objects("hosts")) {
    const Index ranks = host.whole("ranks");
    const Index cores = host.whole("cores");
    const Index busy = trainers.empty() ? ranks : trainers[host.text("name")];  // who waits leaves others the cores
    run.shares_cores = run.shares_cores || (cores > 0 && busy > cores);
    words.push_back(counted(ranks, "rank") + (cores > 0 ? " on " + counted(cores, "core") : "") + " of " +
                    host.text("name"));
  }
  run.cores = listed(words);
}

/// "linear scaling": which rate belongs to which batch.
std::string rates(const Fields& json, const Fields& arguments, const RunRecord& run) {
  if (run.batches.size() < 2) return brief(arguments.number("lr"));
  std::map<Index, double> rate_of;
  for (const Fields& share : json.objects("shares")) rate_of[share.whole("batch")] = share.number("lr");
  std::vector<std::string> words;
  for (const Index batch : run.batches) {
    words.push_back(brief(rate_of[batch]) + " for a batch of " + std::to_string(batch));
  }
  return listed(words);
}

std::string sharding_fact(const Sharding& sharding) {
  switch (sharding.kind) {
    case Sharding::Kind::iid:
      return "iid: as the epoch's shuffle has them";
    case Sharding::Kind::by_class:
      return "by-class: each global batch sorted by label";
    case Sharding::Kind::dirichlet:
      break;
  }
  return sharding.name() + ": a class mix of its own for each eighth of a global batch";
}

/// "at step 141 on 2 ranks, 2026-01-31T23:59:59Z; ..."
std::string later_sessions(const Fields& json) {
  std::string text;
  for (const Fields& session : json.objects("sessions")) {
    if (session.whole("first_step") <= 1) continue;
    text += (text.empty() ? "" : "; ") + std::string("at step ") + std::to_string(session.whole("first_step")) +
            " on " + counted(session.whole("ranks"), "rank") + ", " + session.text("started");
  }
  return text;
}

void collect_facts(const Fields& json, RunRecord& run) {
  const auto add = [&run](const char* name, const std::string& value) {
    if (!value.empty()) run.facts.emplace_back(name, value);
  };
  const Fields arguments = json.object("arguments");
  add("Command", json.text("command_line"));
  if (json.has("data")) {
    const Fields data = json.object("data");
    add("Data", data.text("name") + ": " + std::to_string(data.whole("train_count")) + " training and " +
                    std::to_string(data.whole("test_count")) + " test images of " +
                    std::to_string(data.whole("height")) + " x " + std::to_string(data.whole("width")) + " pixels");
  }
  add("Network", arguments.text("network"));
  add("Epochs", std::to_string(run.epochs));
  add("Global batch", listed_numbers(run.batches));
  add("Samples to ranks", sharding_fact(run.sharding));
  add("Learning rate", rates(json, arguments, run) + ", " + arguments.text("schedule") + ", momentum " +
                           brief(arguments.number("momentum")) + ", weight decay " +
                           brief(arguments.number("weight_decay")));
  add("Seeds", listed_numbers(run.seeds));
  const std::string processes = run.cores.empty() ? std::to_string(run.ranks) : run.cores;
  add("Ranks", (run.rank_counts.size() > 1 ? listed_numbers(run.rank_counts) + " of " : "") + processes);
  add("Started", run.started);
  if (json.has("sessions")) add("Taken up again", later_sessions(json));
  add("Finished", json.text("finished"));
  add("Stopped", json.text("ended"));
  if (json.has("versions")) {
    const Fields versions = json.object("versions");
    add("Versions",
        "syncbn " + versions.text("syncbn") + "; " + versions.text("mpi") + "; compiler " + versions.text("compiler"));
  }
}

RunRecord read_run_json(const std::string& where, const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) throw DataError(where + " is not JSON");
  const Fields fields(json, where);
  RunRecord run;
  run.command = fields.text("command");
  run.started = fields.text("started");
  run.ranks = fields.whole("ranks");
  run.is_finished = fields.text("state") == "finished";
  if (run.ranks < 1) fields.refuse("ranks", "a number of ranks");
  read_arguments(fields.object("arguments"), run);
  if (fields.has("data")) run.data = fields.object("data").text("name");
  read_shares(fields, run);
  read_hosts(fields, run);
  collect_facts(fields, run);
  return run;
}

/// Takes the lines of metrics.jsonl, one after the other.
class MetricsReader {
 public:
  explicit MetricsReader(RunRecord& run) : run_(run) {}

  void take(const Fields& line) {
    const std::string kind = line.text("kind");
    if (kind == "check") return take_check(line);
    const std::string arm = line.text("arm");
    if (arm == "control") return;
    if (kind != "step" && kind != "drift" && kind != "epoch" && kind != "end")
      line.refuse("kind", "one that a run writes");
    RecordedTraining& training = find_or_add(id_of(arm, line.whole("ranks"), line), line);
    if (kind == "step") training.last_step = line.whole("step");
    if (kind == "drift") take_drift(line, training);
    if (kind == "epoch") take_epoch(line, training);
    if (kind == "end") {
      training.has_ended = true;
      training.has_diverged = line.flag("diverged");
      training.weights_hash = line.text("weights_hash");
    }
  }

 private:
  /// Where there is one number of ranks, it is that of all trainings, whatever the line says: in files of earlier versions nothing,
  /// and of a training that was taken up again perhaps another one.
  TrainingId id_of(const std::string& label, Index ranks, const Fields& line) const {
    const bool has_choice = run_.rank_counts.size() > 1;
    return {label, line.whole("batch"), line.seed("seed"), has_choice ? ranks : run_.rank_counts.front()};
  }

  void check_ranks(const TrainingId& id, const Fields& line) const {
    const bool is_known = std::any_of(known_.begin(), known_.end(), [&id](const ArmOnRanks& each) {
      return each.arm.name() == id.label && each.ranks == id.ranks;
    });
    if (!is_known) line.refuse("ranks", "a number of ranks that run.json has for this arm");
  }

  void take_epoch(const Fields& line, RecordedTraining& training) {
    constexpr double kMaxEpochs = 1e6;
    RecordedEpoch epoch;
    line.number_within("epoch", 1, kMaxEpochs);
    epoch.epoch = line.whole("epoch");
    epoch.train_loss = line.number("train_loss");
    epoch.test_error = 1 - line.number_within("test_accuracy", 0, 1);
    epoch.mean_statistics_error = 1 - line.number_within("mean_statistics_accuracy", 0, 1);
    epoch.best_rank_error = 1 - line.number_within("best_rank_accuracy", 0, 1);
    epoch.worst_rank_error = 1 - line.number_within("worst_rank_accuracy", 0, 1);
    epoch.precise_error = 1 - line.number_within("precise_bn_accuracy", 0, 1);
    epoch.train_mode_error = 1 - line.number_within("train_mode_accuracy", 0, 1);
    epoch.step_seconds = line.number_within("step_seconds", 0, kHuge);
    if (line.has("step_costs")) epoch.costs = costs_in(line.object("step_costs"));
    auto& epochs = training.epochs;  // a training that was taken up again tells some of them twice
    while (!epochs.empty() && epochs.back().epoch >= epoch.epoch) epochs.pop_back();
    epochs.push_back(epoch);
  }

  static void take_drift(const Fields& line, RecordedTraining& training) {
    RecordedDrift drift{line.whole("step"), line.texts("layers"), line.numbers_within("mean_drift", 0, kHuge)};
    if (drift.layers.empty() || drift.mean_drifts.size() != drift.layers.size()) {
      line.refuse("mean_drift", "a list of as many numbers as \"layers\" has names, one at least");
    }
    auto& drifts = training.drifts;  // a training that was taken up again tells some of them twice
    while (!drifts.empty() && drifts.back().step >= drift.step) drifts.pop_back();
    if (!drifts.empty() && drifts.back().layers != drift.layers) line.refuse("layers", "those of the line before");
    drifts.push_back(std::move(drift));
  }

  static StepCosts costs_in(const Fields& costs) {
    const auto number = [&costs](const char* key) { return costs.number_within(key, 0, kHuge); };
    return {number("statistics_seconds"), number("message_seconds"), number("element_seconds"), number("rest_seconds"),
            number("message_bytes")};
  }

  void take_check(const Fields& line) {
    const bool is_from_sync = line.has("sync_from_sync");
    const Fields found = line.object(is_from_sync ? "sync_from_sync" : "sync_from_single");
    const TrainingId sync = id_of("sync", line.whole("ranks"), line);
    const TrainingId from = is_from_sync ? id_of("sync", line.whole("from_ranks"), line) : id_of("single", 1, line);
    check_ranks(sync, line);
    run_.checks.push_back({sync.ranks, sync.batch, sync.seed, from, line.flag("passed"), found.flag("same_bits"),
                           found.number("max_weight_difference"), found.number("max_loss_difference")});
  }

  RecordedTraining& find_or_add(const TrainingId& id, const Fields& line) {
    const auto [place, is_new] = places_.try_emplace({id.label, id.ranks, id.batch, id.seed}, run_.trainings.size());
    if (is_new) {
      const auto& arms = run_.arms;
      const auto& batches = run_.batches;
      if (std::find(arms.begin(), arms.end(), id.label) == arms.end()) line.refuse("arm", "an arm of run.json");
      if (std::find(batches.begin(), batches.end(), id.batch) == batches.end()) {
        line.refuse("batch", "a batch of run.json");
      }
      check_ranks(id, line);
      run_.trainings.push_back({id, {}, 0, false, false, "", {}});
    }
    return run_.trainings[place->second];
  }

  RunRecord& run_;
  const std::vector<ArmOnRanks> known_ = arms_on_ranks(run_);
  std::map<std::tuple<std::string, Index, Index, std::uint64_t>, std::size_t> places_;
};

/// False at the end. A line that is too long is cut: it is no JSON then.
bool next_line(std::istream& in, std::string& line) {
  line.clear();
  for (char c = 0; in.get(c);) {
    if (c == '\n') return true;
    if (line.size() < kMaxLine) line += c;
  }
  return !line.empty();
}

std::ifstream open(const std::filesystem::path& folder, const char* name) {
  const std::filesystem::path path = folder / name;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    throw DataError("there is no run in " + folder.string() + ": it has no " + name);
  }
  if (!std::filesystem::is_regular_file(path, ignored)) throw DataError(path.string() + " is not a file");
  std::ifstream file(path, std::ios::binary);
  if (!file) throw DataError("cannot read " + path.string());
  return file;
}

}  // namespace

std::vector<ArmOnRanks> arms_on_ranks(const RunRecord& run) {
  std::vector<Arm> arms;
  for (const std::string& name : run.arms) arms.push_back(Arm::parse(name));
  return arms_on_ranks(arms, run.rank_counts);
}

RunRecord parse_run(const std::string& folder, const std::string& run_json, std::istream& metrics) {
  RunRecord run = read_run_json(folder + "/run.json", run_json);
  MetricsReader reader(run);
  Index number = 0;
  for (std::string line; next_line(metrics, line);) {
    const std::string where = folder + "/metrics.jsonl, line " + std::to_string(++number);
    const Json json = Json::parse(line, nullptr, false);
    const bool is_cut_off = metrics.eof();  // the end came before the end of the line
    if (json.is_discarded() && is_cut_off) break;
    if (json.is_discarded()) throw DataError(where + " is not JSON");
    reader.take(Fields(json, where));
  }
  return run;
}

RunRecord load_run(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (!std::filesystem::exists(folder, ignored)) throw DataError("the folder " + folder.string() + " does not exist");
  if (!std::filesystem::is_directory(folder, ignored)) throw DataError(folder.string() + " is not a folder");
  std::ifstream run_file = open(folder, "run.json");
  std::ifstream metrics = open(folder, "metrics.jsonl");
  const auto size = std::filesystem::file_size(folder / "run.json", ignored);
  if (size > kMaxRunJson) throw DataError((folder / "run.json").string() + " is too large for a run.json");
  std::ostringstream text;
  text << run_file.rdbuf();
  return parse_run(folder.string(), text.str(), metrics);
}

}  // namespace syncbn::train
