// SPDX-License-Identifier: MIT
// metrics.jsonl of a training that goes on from a checkpoint.
#include <algorithm>
#include <fstream>

#include <nlohmann/json.hpp>

#include "checkpoint.hpp"
#include "errors.hpp"

namespace syncbn::train {

namespace {

/// Where the line stands in the training; 0 if it does not say.
double number_of(const nlohmann::json& line, const char* name) {
  const auto found = line.find(name);
  return found != line.end() && found->is_number() ? found->get<double>() : 0;
}

bool is_kept(const std::string& text, const Checkpoint& checkpoint) {
  const nlohmann::json line = nlohmann::json::parse(text, nullptr, false);
  if (!line.is_object() || line.value("kind", nlohmann::json()) == "end") return false;
  if (line.contains("step")) return number_of(line, "step") <= static_cast<double>(checkpoint.step_losses.size());
  return number_of(line, "epoch") <= static_cast<double>(checkpoint.epochs.size());
}

/// A time or a number of bytes; StepCosts::kNone if the object has none of that name.
double cost_of(const nlohmann::json& costs, const char* name) {
  const auto found = costs.find(name);
  const bool is_sound = found != costs.end() && found->is_number() && found->get<double>() >= 0;
  return is_sound ? found->get<double>() : StepCosts::kNone;
}

}  // namespace

void trim_metrics(const std::filesystem::path& folder, const Checkpoint& checkpoint) {
  const std::filesystem::path path = folder / "metrics.jsonl";
  const std::filesystem::path temporary = folder / ".metrics.jsonl.part";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return;
  if (!std::filesystem::is_regular_file(path, error)) throw DataError(path.string() + " is not a regular file");
  std::ifstream before(path);
  std::ofstream after(temporary);
  for (std::string line; std::getline(before, line);) {
    if (is_kept(line, checkpoint)) after << line << '\n';
  }
  after.close();
  if (!before.eof() || !after) {
    std::filesystem::remove(temporary, error);
    throw DataError("cannot rewrite " + path.string());
  }
  std::filesystem::rename(temporary, path, error);
  if (error) throw DataError("cannot replace " + path.string() + ": " + error.message());
}

void recall_costs(const std::filesystem::path& folder, Checkpoint& checkpoint) {
  std::ifstream metrics(folder / "metrics.jsonl");
  for (std::string text; std::getline(metrics, text);) {
    const nlohmann::json line = nlohmann::json::parse(text, nullptr, false);
    if (!line.is_object() || line.value("kind", nlohmann::json()) != "epoch") continue;
    const nlohmann::json costs = line.value("step_costs", nlohmann::json());
    const auto epoch = std::find_if(checkpoint.epochs.begin(), checkpoint.epochs.end(), [&](const EpochRecord& record) {
      return static_cast<double>(record.epoch) == number_of(line, "epoch");
    });
    if (!costs.is_object() || epoch == checkpoint.epochs.end()) continue;
    const StepCosts found{cost_of(costs, "statistics_seconds"), cost_of(costs, "message_seconds"),
                          cost_of(costs, "element_seconds"), cost_of(costs, "rest_seconds"),
                          cost_of(costs, "message_bytes")};
    if (found.are_known()) epoch->costs = found;
  }
}

}  // namespace syncbn::train
