// SPDX-License-Identifier: MIT
// Command-line options that take one of a few names.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

namespace syncbn::cli {

template <class T>
using Choices = std::vector<std::pair<std::string, T>>;

/// Declares `flag` on `command`; `value` gets what belongs to the name, and keeps what it is if the option is not
/// given.
template <class T>
CLI::Option* add_choice(CLI::App& command, const std::string& flag, T& value, const std::string& help,
                        const Choices<T>& choices) {
  std::string names, initial;
  for (const auto& [name, choice] : choices) {
    names += (names.empty() ? "" : "|") + name;
    if (choice == value) initial = name;
  }
  const auto check = [choices, names](const std::string& text) {
    for (const auto& [name, choice] : choices) {
      if (name == text) return std::string();
    }
    return "'" + text + "' is not one of " + names;
  };
  const auto assign = [choices, &value](const std::string& text) {
    for (const auto& [name, choice] : choices) {
      if (name == text) value = choice;
    }
  };
  return command.add_option_function<std::string>(flag, assign, help)
      ->check(CLI::Validator(check, ""))
      ->type_name(names)
      ->default_str(initial);
}

}  // namespace syncbn::cli
