// SPDX-License-Identifier: MIT
#include "comparison_json.hpp"

#include <cmath>

#include <nlohmann/json.hpp>

#include "errors.hpp"
#include "record_json.hpp"

namespace syncbn::train {

namespace {

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json spread_json(const Spread& spread) {
  return {{"count", spread.count},
          {"median", number(spread.median)},
          {"smallest", number(spread.smallest)},
          {"largest", number(spread.largest)}};
}

Json epoch_json(const RecordedEpoch& epoch) {
  Json json{{"epoch", epoch.epoch},
            {"train_loss", number(epoch.train_loss)},
            {"test_error", number(epoch.test_error)},
            {"step_seconds", number(epoch.step_seconds)}};
  const auto add = [&json](const char* key, double value) {
    if (std::isfinite(value)) json[key] = value;
  };
  add("mean_statistics_error", epoch.mean_statistics_error);
  add("best_rank_error", epoch.best_rank_error);
  add("worst_rank_error", epoch.worst_rank_error);
  add("precise_bn_error", epoch.precise_error);
  add("train_mode_error", epoch.train_mode_error);
  add_costs(epoch.costs, json);
  return json;
}

Json training_json(const RecordedTraining& training) {
  Json json{{"arm", training.id.label},
            {"ranks", training.id.ranks},
            {"batch", training.id.batch},
            {"seed", training.id.seed},
            {"ended", training.has_ended},
            {"diverged", training.has_diverged},
            {"test_error", training.has_diverged ? Json(nullptr) : number(final_error(training))},
            {"step_seconds", number(step_seconds(training))},
            {"weights_hash", training.weights_hash},
            {"epochs", Json::array()}};
  for (const RecordedEpoch& epoch : training.epochs) json["epochs"].push_back(epoch_json(epoch));
  return json;
}

Json figures_json(const ArmFigures& figures) {
  Json json{{"arm", figures.arm},
            {"ranks", figures.ranks},
            {"batch", figures.batch},
            {"rank_batch_min", figures.share.rank.smallest},
            {"rank_batch_max", figures.share.rank.largest},
            {"norm_batch_min", figures.share.norm.smallest},
            {"norm_batch_max", figures.share.norm.largest},
            {"trainings", figures.begun},
            {"ended", figures.ended},
            {"diverged", figures.diverged},
            {"test_error", spread_json(figures.error)},
            {"train_loss", spread_json(figures.train_loss)},
            {"step_seconds", spread_json(figures.step_seconds)}};
  const auto add = [&json](const char* key, const Spread& spread) {
    if (spread.count > 0) json[key] = spread_json(spread);
  };
  add("mean_statistics_error", figures.mean_statistics_error);
  add("best_rank_error", figures.best_rank_error);
  add("worst_rank_error", figures.worst_rank_error);
  add("precise_bn_error", figures.precise_error);
  add("train_mode_error", figures.train_mode_error);
  add_costs(figures.costs, json);
  return json;
}

}  // namespace

std::string comparison_json(const std::string& run_json, const RunRecord& run, const std::vector<ArmFigures>& figures,
                            const Verdict& verdict) {
  Json json = Json::parse(run_json, nullptr, false);
  if (!json.is_object()) throw DataError("run.json is not a JSON object");
  json["trainings"] = Json::array();
  for (const RecordedTraining& training : run.trainings) json["trainings"].push_back(training_json(training));
  json["figures"] = Json::array();
  for (const ArmFigures& each : figures) json["figures"].push_back(figures_json(each));
  json["verdict"] = {{"headline", verdict.headline}, {"details", verdict.details}};
  if (!verdict.unfinished.empty()) json["verdict"]["unfinished"] = verdict.unfinished;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace syncbn::train
