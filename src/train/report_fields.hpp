// SPDX-License-Identifier: MIT
// Reading JSON of unknown origin.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "errors.hpp"
#include "syncbn/tensor_view.hpp"

namespace syncbn::train {

/// The members of a JSON object; each is looked at before it is believed. Throws DataError, naming `where`.
class Fields {
 public:
  /// `json` is borrowed.
  Fields(const nlohmann::json& json, std::string where) : json_(json), where_(std::move(where)) {
    if (!json.is_object()) throw DataError(where_ + " is not a JSON object");
  }

  bool has(const char* key) const { return find(key) != nullptr; }

  /// NaN if there is none, or null.
  double number(const char* key) const {
    const nlohmann::json* value = find(key);
    if (!value) return std::numeric_limits<double>::quiet_NaN();
    if (!value->is_number()) refuse(key, "a number");
    return value->get<double>();
  }

  /// As number(), from `smallest` to `largest`.
  double number_within(const char* key, double smallest, double largest) const {
    const double value = number(key);
    if (!std::isnan(value) && !(value >= smallest && value <= largest)) {
      refuse(key, "a number from " + brief(smallest) + " to " + brief(largest));
    }
    return value;
  }

  /// From 0 to 10^15; 0 if there is none.
  Index whole(const char* key) const {
    const nlohmann::json* value = find(key);
    return value ? whole_of(*value, key) : 0;
  }

  /// Any unsigned number of 64 bits.
  std::uint64_t seed(const char* key) const {
    const nlohmann::json* value = find(key);
    return value ? seed_of(*value, key) : 0;
  }

  /// Empty if there is none.
  std::string text(const char* key) const {
    const nlohmann::json* value = find(key);
    if (!value) return "";
    if (!value->is_string()) refuse(key, "a text");
    return value->get<std::string>();
  }

  /// False if there is none.
  bool flag(const char* key) const {
    const nlohmann::json* value = find(key);
    if (value && !value->is_boolean()) refuse(key, "true or false");
    return value && value->get<bool>();
  }

  /// Throws if there is none.
  Fields object(const char* key) const {
    const nlohmann::json* value = find(key);
    if (!value) throw DataError(where_ + " has no \"" + key + "\"");
    return Fields(*value, where_ + ": \"" + key + "\"");
  }

  /// Members of a list; none if there is no list.
  std::vector<Fields> objects(const char* key) const {
    std::vector<Fields> result;
    for (const nlohmann::json& item : list(key)) result.emplace_back(item, where_ + ": a member of \"" + key + "\"");
    return result;
  }
  std::vector<std::string> texts(const char* key) const {
    std::vector<std::string> result;
    for (const nlohmann::json& item : list(key)) {
      if (!item.is_string()) refuse(key, "a list of texts");
      result.push_back(item.get<std::string>());
    }
    return result;
  }
  std::vector<Index> wholes(const char* key) const {
    std::vector<Index> result;
    for (const nlohmann::json& item : list(key)) result.push_back(whole_of(item, key));
    return result;
  }
  /// NaN for null.
  std::vector<double> numbers_within(const char* key, double smallest, double largest) const {
    std::vector<double> result;
    for (const nlohmann::json& item : list(key)) {
      const double value = item.is_number() ? item.get<double>() : std::numeric_limits<double>::quiet_NaN();
      const bool is_good = item.is_null() || (value >= smallest && value <= largest);
      if (!is_good) refuse(key, "a list of numbers from " + brief(smallest) + " to " + brief(largest));
      result.push_back(value);
    }
    return result;
  }
  std::vector<std::uint64_t> seeds(const char* key) const {
    std::vector<std::uint64_t> result;
    for (const nlohmann::json& item : list(key)) result.push_back(seed_of(item, key));
    return result;
  }

  [[noreturn]] void refuse(const std::string& key, const std::string& wanted) const {
    throw DataError(where_ + ": \"" + key + "\" is not " + wanted);
  }

 private:
  const nlohmann::json* find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  const nlohmann::json& list(const char* key) const {
    static const nlohmann::json kNone = nlohmann::json::array();
    const nlohmann::json* value = find(key);
    if (value && !value->is_array()) refuse(key, "a list");
    return value ? *value : kNone;
  }
  Index whole_of(const nlohmann::json& value, const char* key) const {
    constexpr std::uint64_t kLargest = 1000000000000000;
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > kLargest) {
      refuse(key, "a whole number from 0 to 10^15");
    }
    return static_cast<Index>(value.get<std::uint64_t>());
  }
  std::uint64_t seed_of(const nlohmann::json& value, const char* key) const {
    if (!value.is_number_unsigned()) refuse(key, "a whole number, 0 or more");
    return value.get<std::uint64_t>();
  }
  static std::string brief(double value) { return nlohmann::json(value).dump(); }

  const nlohmann::json& json_;
  std::string where_;
};

}  // namespace syncbn::train
