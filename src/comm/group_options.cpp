// SPDX-License-Identifier: MIT
#include "comm/group_options.hpp"

#include <cmath>
#include <cstdlib>
#include <sstream>
#include <string>

namespace syncbn::comm {
namespace {

constexpr const char* kDeadlineVariable = "SYNCBN_DEADLINE_SECONDS";
constexpr const char* kExchangeVariable = "SYNCBN_EXCHANGE";

bool is_deadline(double seconds) { return std::isfinite(seconds) && seconds > 0.0; }

std::string quoted(const char* text) {
  std::string result(1, '\'');
  result += text;
  result += '\'';
  return result;
}

Problem problem_with(const std::string& what, const std::string& value, const std::string& wanted) {
  return {ErrorCode::option, "[Communicator construction] " + what + " is " + value + ", it must be " + wanted};
}

std::optional<Problem> set_deadline(const CommunicatorOptions& options, GroupOptions& result) {
  const std::string wanted = "a number of seconds greater than 0";
  if (options.deadline_seconds) {
    if (!is_deadline(*options.deadline_seconds)) {
      std::ostringstream value;
      value << *options.deadline_seconds;
      return problem_with("deadline_seconds", value.str(), wanted);
    }
    result.deadline_seconds = *options.deadline_seconds;
    return std::nullopt;
  }
  const char* text = std::getenv(kDeadlineVariable);
  if (text == nullptr) return std::nullopt;
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  if (end == text || *end != '\0' || !is_deadline(seconds)) {
    return problem_with(kDeadlineVariable, quoted(text), wanted);
  }
  result.deadline_seconds = seconds;
  return std::nullopt;
}

std::optional<Problem> set_exchange(const CommunicatorOptions& options, GroupOptions& result) {
  result.exchange = options.exchange;
  const char* variable = std::getenv(kExchangeVariable);
  if (options.exchange != Exchange::automatic || variable == nullptr) return std::nullopt;
  const std::string text = variable;
  if (text == "all_reduce") {
    result.exchange = Exchange::all_reduce;
  } else if (text == "all_gather") {
    result.exchange = Exchange::all_gather;
  } else if (text != "automatic") {
    return problem_with(kExchangeVariable, quoted(variable), "automatic, all_reduce or all_gather");
  }
  return std::nullopt;
}

}  // namespace

GroupOptions group_options_from(const CommunicatorOptions& options, std::optional<Problem>& problem) {
  GroupOptions result;
  problem = set_deadline(options, result);
  const std::optional<Problem> other = set_exchange(options, result);
  if (!problem) problem = other;
  return result;
}

}  // namespace syncbn::comm
