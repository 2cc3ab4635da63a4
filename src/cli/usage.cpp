// SPDX-License-Identifier: MIT
#include "usage.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include <CLI/CLI.hpp>

namespace syncbn::cli {
namespace {

/// Optimal string alignment distance: three rows of the table are alive at a time.
std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> before, above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) above[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({replace, above[j] + 1, row[j - 1] + 1});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before = above;
    above = row;
  }
  return above[b.size()];
}

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::vector<std::string> subcommand_names(const CLI::App& tool) {
  std::vector<std::string> names;
  for (const CLI::App* command : tool.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(command->get_name());
  }
  return names;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates) {
  const std::optional<std::string> near = closest(word, candidates);
  return near ? ", did you mean " + *near + "?" : "";
}

Failure unknown_argument(const CLI::App& command, const std::string& word) {
  if (word.rfind('-', 0) != 0) return {kUsage, "unexpected argument '" + word + "'"};
  const std::string name = word.substr(0, word.find('='));
  return {kUsage, "unknown option " + name + did_you_mean(name, option_names(command))};
}

Failure unknown_at_top(const CLI::App& tool, const std::string& word) {
  if (word.rfind('-', 0) == 0) return unknown_argument(tool, word);
  const std::vector<std::string> names = subcommand_names(tool);
  const std::string hint = did_you_mean(word, names);
  return {kUsage, "unknown subcommand '" + word + "'" + (hint.empty() ? ", wanted one of " + joined(names) : hint)};
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  while (!text.empty() && (text.back() == ' ' || text.back() == '.')) text.pop_back();
  return text;
}

/// The option of the chosen subcommand whose name stands in `text` between `before` and `after`.
const CLI::Option* option_named_in(const CLI::App& tool, const std::string& text, const std::string& before,
                                   const std::string& after) {
  for (const CLI::App* command : tool.get_subcommands()) {
    for (const CLI::Option* option : command->get_options()) {
      if (text.rfind(before + option->get_name() + after, 0) == 0) return option;
    }
  }
  return nullptr;
}

/// CLI11's own "--arms: 1 required LIST missing", "--arms: At Most 1 required but received 2" and "Could not convert:
/// --epochs = x" as sentences.
std::string sentence_of(const CLI::App& tool, const CLI::ParseError& error) {
  const std::string text = one_line(error.what());
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error)) {
    if (const CLI::Option* option = option_named_in(tool, text, "", ":")) {
      const std::string name = option->get_name();
      if (option->count() > 1) return name + " is given " + std::to_string(option->count()) + " times, wanted once";
      return name + " needs a value, " + option->get_type_name();
    }
  }
  if (dynamic_cast<const CLI::ConversionError*>(&error)) {
    if (const CLI::Option* option = option_named_in(tool, text, "Could not convert: ", " = ")) {
      return option->get_name() + " has '" + text.substr(text.find(" = ") + 3) + "', wanted " + option->get_type_name();
    }
  }
  return text;
}

/// As one word of a shell's command line.
std::string quoted(const std::string& word) {
  const bool is_plain = !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || std::strchr("_./:,=+-@%", c);
  });
  if (is_plain) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

}  // namespace

std::string command_line_of(const CLI::App& command) {
  std::string text = "syncbn " + command.get_name();
  for (const CLI::Option* option : command.get_options()) {
    if (option->count() == 0) continue;
    const bool is_flag = option->get_expected_max() == 0;
    if (!option->get_positional()) text += " " + option->get_name();
    if (is_flag) continue;
    for (const std::string& value : option->results()) text += " " + quoted(value);
  }
  return text;
}

std::optional<std::string> closest(const std::string& word, const std::vector<std::string>& candidates) {
  std::optional<std::string> best;
  std::size_t best_distance = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string chosen_subcommand(const CLI::App& tool) {
  const std::vector<CLI::App*> chosen = tool.get_subcommands();
  return chosen.empty() ? "" : chosen.front()->get_name();
}

Failure usage_failure(const CLI::App& tool, const CLI::ParseError& error) {
  if (const auto words = tool.remaining(); !words.empty()) return unknown_at_top(tool, words.front());
  for (const CLI::App* command : tool.get_subcommands()) {
    if (const auto words = command->remaining(); !words.empty()) return unknown_argument(*command, words.front());
  }
  if (chosen_subcommand(tool).empty()) {
    return {kUsage, "a subcommand is needed, one of " + joined(subcommand_names(tool))};
  }
  return {kUsage, sentence_of(tool, error)};
}

}  // namespace syncbn::cli
