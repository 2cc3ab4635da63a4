// SPDX-License-Identifier: MIT
#include "earlier_run.hpp"

#include <nlohmann/json.hpp>

#include "checkpoint.hpp"
#include "errors.hpp"

namespace syncbn::train {

namespace {

using Json = nlohmann::json;

/// "checkpoint.syncbn, run.json": those that say something; a run that ended before its first line leaves an empty file.
std::string files_in(const std::filesystem::path& folder) {
  std::string names;
  for (const char* name : kRunFiles) {
    std::error_code error;
    const std::filesystem::path file = folder / name;
    if (!std::filesystem::exists(file, error)) continue;
    if (std::filesystem::is_regular_file(file, error) && std::filesystem::file_size(file, error) == 0) continue;
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  return names;
}

/// Of a text of run.json: command and arguments, as far as they decide what is trained. The numbers of ranks and threads may change.
Json purpose_of(const Json& run) {
  if (!run.is_object()) return {};
  Json arguments = run.value("arguments", Json());
  if (arguments.is_object()) {
    arguments.erase("ranks");
    arguments.erase("threads");
  }
  return {{"command", run.value("command", Json())}, {"arguments", arguments}};
}

bool is_of_same_run(const std::filesystem::path& file, const RunDescription& run) {
  const Json earlier = Json::parse(std::ifstream(file), nullptr, false);
  return purpose_of(earlier) == purpose_of(Json::parse(run_json(run)));
}

}  // namespace

FolderPlan plan_folder(const std::filesystem::path& folder, Wish wish, const RunDescription& run) {
  const std::string files = files_in(folder);
  if (wish == Wish::overwrite || (files.empty() && wish == Wish::none)) return {};
  const std::string named = folder.string();
  if (wish == Wish::none) {
    throw UsageError(named + " has an earlier run (" + files +
                     "): go on with it (--resume), replace it (--overwrite), or name another folder (--out)");
  }
  std::error_code error;
  if (std::filesystem::exists(folder / kCheckpointName, error)) return {RunFolder::Earlier::continued, true, ""};
  if (!files.empty() && !is_of_same_run(folder / "run.json", run)) {
    throw UsageError(named + " has no checkpoint to resume from, but another run (" + files +
                     "): replace it (--overwrite), or name another folder (--out)");
  }
  return {RunFolder::Earlier::removed, false,
          named + " has no checkpoint to resume from, so the training begins at its first step"};
}

}  // namespace syncbn::train
