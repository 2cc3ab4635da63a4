// SPDX-License-Identifier: MIT
// metrics.jsonl of a training that goes on from a checkpoint.
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

}  // namespace syncbn::train
