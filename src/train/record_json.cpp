// SPDX-License-Identifier: MIT
#include "record_json.hpp"

#include <array>
#include <cmath>
#include <ctime>

#include "step_costs.hpp"
#include "syncbn/version.hpp"

namespace syncbn::train {

namespace {

std::string mpi_library() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string version = text.data();
  return version.substr(0, version.find_first_of("\n,"));
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
          {"threads", training.threads},
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

Json session_json(const RunSession& session) {
  return {{"started", session.started},
          {"command_line", session.command_line},
          {"ranks", session.ranks},
          {"first_step", session.first_step}};
}

Json costs_json(const StepCosts& costs) {
  return {{"statistics_seconds", costs.statistics_seconds},
          {"message_seconds", costs.message_seconds},
          {"element_seconds", costs.element_seconds},
          {"rest_seconds", costs.rest_seconds},
          {"message_bytes", std::llround(costs.message_bytes)}};
}

StepCosts median_costs(const TrainingResult& result) {
  std::vector<StepCosts> costs;
  for (const EpochRecord& epoch : result.epochs) costs.push_back(epoch.costs);
  return median_of(costs);
}

}  // namespace

std::string text_of(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
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

Json description_json(const RunDescription& run, const char* state) {
  Json shares = Json::array();
  for (const Index batch : run.options.batches) {
    for (const ArmOnRanks& what : arms_on_ranks(run.options.arms, run.options.ranks)) {
      shares.push_back(share_json(run, what, batch));
    }
  }
  const Json places = places_json(run.places);
  Json json{{"format", 1},
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
  if (run.command == "train") {
    json["sessions"] = Json::array();
    for (const RunSession& session : run.earlier) json["sessions"].push_back(session_json(session));
    json["sessions"].push_back(session_json({run.started, run.command_line, run.ranks, run.first_step}));
  }
  return json;
}

void add_accuracies(const OtherAccuracies& others, Json& json) {
  const auto add = [&json](const char* key, double accuracy) {
    if (std::isfinite(accuracy)) json[key] = accuracy;
  };
  add("mean_statistics_accuracy", others.mean_statistics);
  add("worst_rank_accuracy", others.worst_rank);
  add("best_rank_accuracy", others.best_rank);
  add("precise_bn_accuracy", others.precise);
  add("train_mode_accuracy", others.train_mode);
}

void add_costs(const StepCosts& costs, Json& json) {
  if (costs.are_known()) json["step_costs"] = costs_json(costs);
}

Json result_json(const TrainingResult& result) {
  Json json{{"steps", result.step_losses.size()},    {"train_loss", last_train_loss(result)},
            {"test_accuracy", result.test_accuracy}, {"seconds", result.seconds},
            {"diverged", result.diverged},           {"weights_hash", hex_of(result.weights_hash)}};
  add_costs(median_costs(result), json);
  return json;
}

}  // namespace syncbn::train
