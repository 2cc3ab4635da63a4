// SPDX-License-Identifier: MIT
// What synchronizing costs in time, in words whose numbers agree with each other.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "report_effects.hpp"
#include "report_text.hpp"

namespace syncbn::train {

namespace {

/// The number that duration() shows: who divides what is printed gets what is printed.
double as_printed(double seconds) {
  const std::string text = duration(seconds);  // "1.04 ms"
  const double number = std::strtod(text.c_str(), nullptr);
  return text == "-" ? kUnknown : text.find("ms") != std::string::npos ? 1e-3 * number : number;
}

/// sync / arm - 1, epoch by epoch.
void add_epochs(const RecordedTraining& arm, const RecordedTraining& sync, std::vector<double>& changes) {
  for (std::size_t i = 0; i < std::min(arm.epochs.size(), sync.epochs.size()); ++i) {
    const double denominator = arm.epochs[i].step_seconds;
    if (denominator > 0) changes.push_back(sync.epochs[i].step_seconds / denominator - 1);
  }
}

std::string percents_text(double change) {
  const double percents = 100 * std::abs(change);
  return percents < 0.5 ? "less than 1 %" : fixed(percents, 0) + " %";
}

/// "3 % less", "25 % more", "2.5 times as much"
std::string change_text(double change) {
  if (change >= 0.995) return fixed(1 + change, 1) + " times as much";
  return percents_text(change) + (change >= 0 ? " more" : " less");
}

std::string medians_text(const StepChange& change) {
  return duration(change.sync_seconds) + " against " + duration(change.arm_seconds);
}

std::string seeds_or_epochs(const ArmEffect& effect) { return effect.arm->trainings.size() > 1 ? "seeds" : "epochs"; }

/// "3 % less to 5 % more"
std::string range_text(const Spread& noise) {
  return change_text(noise.smallest) + " to " + change_text(noise.largest);
}

std::string time_sentence(const ArmEffect& effect, const StepChange& change, bool shares_cores) {
  const std::string& arm = effect.arm->arm;
  const double ratio = change.ratio();
  if (change.is_noise()) {
    const char* lead = shares_cores          ? "A step takes "
                       : change.is_unclear() ? "What synchronizing costs in time this run cannot tell: a step takes "
                                             : "Synchronizing has no measurable cost in time here: a step takes ";
    return lead + duration(change.sync_seconds) + " with sync and " + duration(change.arm_seconds) + " with " + arm +
           ", over the " + seeds_or_epochs(effect) + " from " + range_text(change.noise) + ".";
  }
  const std::string than = ratio >= 1.995
                               ? fixed(ratio, 1) + " times as long with sync as with "
                               : (ratio >= 1 ? percents_text(ratio - 1) : "no") + " longer with sync than with ";
  const bool is_one_seed = effect.arm->trainings.size() == 1;  // other work on the machine may have made the difference
  return "A step takes " + than + arm + " (" + medians_text(change) +
         (is_one_seed ? "; one seed, perhaps by chance" : "") + ").";
}

}  // namespace

StepChange step_change(const ArmEffect& effect) {
  std::vector<double> arm_times, sync_times, changes, epoch_changes;
  for (const RecordedTraining* arm : effect.arm->trainings) {
    for (const RecordedTraining* sync : effect.base->trainings) {
      if (arm->id.seed != sync->id.seed || !(step_seconds(*arm) > 0)) continue;
      arm_times.push_back(step_seconds(*arm));
      sync_times.push_back(step_seconds(*sync));
      changes.push_back(sync_times.back() / arm_times.back() - 1);
      add_epochs(*arm, *sync, epoch_changes);
    }
  }
  return {as_printed(spread_of(arm_times).median), as_printed(spread_of(sync_times).median),
          spread_of(changes.size() > 1 ? changes : epoch_changes)};
}

std::string times_sentence(const std::vector<ArmEffect>& effects, bool shares_cores) {
  std::string text;
  for (const ArmEffect& effect : effects) {
    const StepChange change = effect.is_timed() ? step_change(effect) : StepChange{};
    if (!change.is_known()) continue;
    if (effects.size() == 1) return time_sentence(effect, change, shares_cores);
    text += (text.empty() ? "" : "; ") +
            (change.is_noise() ? "from " + range_text(change.noise) + " over the " + seeds_or_epochs(effect)
                               : change_text(change.ratio() - 1)) +
            " at " + (text.empty() ? effect.place : effect.short_place) + " (" + medians_text(change) + ")";
  }
  return text.empty() ? "" : "A step with sync, compared with " + effects.front().arm->arm + ", takes: " + text + ".";
}

}  // namespace syncbn::train
