// SPDX-License-Identifier: MIT
#include "run_sessions.hpp"

#include <fstream>

#include <nlohmann/json.hpp>

namespace syncbn::train {

std::vector<RunSession> sessions_in(const std::filesystem::path& run_json) noexcept try {
  const nlohmann::json run = nlohmann::json::parse(std::ifstream(run_json));
  std::vector<RunSession> sessions;
  for (const nlohmann::json& session : run.value("sessions", nlohmann::json::array())) {
    sessions.push_back({session.at("started").get<std::string>(), session.at("command_line").get<std::string>(),
                        session.at("ranks").get<Index>(), session.at("first_step").get<Index>()});
  }
  return sessions;
} catch (const std::exception&) {
  return {};
}

}  // namespace syncbn::train
