// SPDX-License-Identifier: MIT
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "syncbn/drift_probe.hpp"
#include "syncbn/error.hpp"

namespace syncbn {
namespace {

/// Names come from the program: quotes, backslashes and control characters are escaped.
std::string quoted(std::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      json += '\\';
      json += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      json += escape;
    } else {
      json += c;
    }
  }
  return json + '"';
}

std::string number(double value) {
  if (!std::isfinite(value)) return "null";
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

}  // namespace

DriftLog::DriftLog(const std::string& path, std::int64_t every) : path_(path), every_(every) {
  if (every < 1) {
    throw OptionError("[DriftLog] every " + std::to_string(every) + " calls is not possible, wanted at least 1");
  }
  file_.open(path, std::ios::binary | std::ios::trunc);
  if (!file_) throw StateError("[DriftLog] cannot make " + path + ": " + std::strerror(errno));
}

void DriftLog::record(const DriftRecord& record) {
  constexpr double kMicro = 1e6;
  const std::string line =
      "{\"layer\":" + quoted(record.layer) + ",\"rank\":" + std::to_string(record.rank) +
      ",\"ranks\":" + std::to_string(record.ranks) + ",\"call\":" + std::to_string(record.call) +
      ",\"own_count\":" + std::to_string(record.own_count) + ",\"count\":" + std::to_string(record.count) +
      ",\"mean_drift\":" + number(record.mean_drift) + ",\"var_drift\":" + number(record.var_drift) +
      ",\"worst_channel\":" + std::to_string(record.worst_channel) +
      ",\"worst_mean_drift\":" + number(record.worst_mean_drift) +
      ",\"message_us\":" + number(record.message_seconds * kMicro) +
      ",\"wait_us\":" + number(record.wait_seconds * kMicro) + "}\n";
  if (!(file_ << line << std::flush))
    throw StateError("[DriftLog] cannot write " + path_ + ": " + std::strerror(errno));
}

}  // namespace syncbn
