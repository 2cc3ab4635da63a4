// SPDX-License-Identifier: MIT
#include "report_effects.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "report_text.hpp"

namespace syncbn::train {

namespace {

LocalEffect::Kind kind_of(const ArmFigures& local, const ArmFigures& sync) {
  using Kind = LocalEffect::Kind;
  if (local.diverged > 0 && sync.diverged == 0 && sync.error.count > 0) return Kind::diverged;
  if (local.error.count == 0 || sync.error.count == 0) return Kind::unknown;
  if (local.error.count == 1 || sync.error.count == 1) return Kind::one_seed;
  if (local.error.smallest > sync.error.largest) return Kind::worse;
  if (local.error.largest < sync.error.smallest) return Kind::better;
  return Kind::unclear;
}

std::string points_text(double points) {
  const std::string number = fixed(std::abs(points), std::abs(points) < 0.995 ? 2 : 1);
  return number + (number == "1.0" ? " point" : " points");
}

/// Cases with the same numbers of samples are told apart by their ranks.
void name_places(std::vector<LocalEffect>& effects) {
  for (LocalEffect& effect : effects) {
    const ShareSizes& sizes = effect.local->share.rank;
    const auto namesakes = std::count_if(effects.begin(), effects.end(), [&](const LocalEffect& other) {
      return sizes_text(other.local->share.rank) == sizes_text(sizes);
    });
    const std::string where = namesakes > 1 ? " on " + counted(effect.local->ranks, "rank") : "";
    effect.short_place = sizes_text(sizes) + where;
    effect.place = sizes_text(sizes) + (sizes.largest == 1 ? " sample" : " samples") + " per process" + where;
  }
}

std::string errors_text(const LocalEffect& effect) {
  return percent(effect.local->error.median) + " test error against " + percent(effect.sync->error.median) +
         " with sync";
}

/// The whole headline of a run with one case.
std::string effect_sentence(const LocalEffect& effect, const std::string& handing) {
  const std::string start = "With " + effect.place + (handing.empty() ? "" : ", " + handing) + ", local batch norm ";
  switch (effect.kind) {
    case LocalEffect::Kind::worse:
      return start + "costs you " + points_text(effect.points()) + " here: " + errors_text(effect) +
             ". Synchronizing pays.";
    case LocalEffect::Kind::better:
      return start + "does better by " + points_text(effect.points()) + " here: " + errors_text(effect) +
             ". No need to synchronize.";
    case LocalEffect::Kind::unclear:
      return start + "makes no difference here that " + counted(effect.local->error.count, "seed") +
             " can show: " + errors_text(effect) + ", within the spread of the seeds.";
    case LocalEffect::Kind::one_seed:
      return start + "ended " + points_text(effect.points()) + " of test error " +
             (effect.points() >= 0 ? "higher" : "lower") + " than sync: " + errors_text(effect) +
             ". One seed cannot tell that from chance: try --seeds 3.";
    case LocalEffect::Kind::diverged:
      return start + "diverged with " + std::to_string(effect.local->diverged) + " of " +
             counted(effect.local->ended, "seed") + "; sync did not, and ended at " +
             percent(effect.sync->error.median) + " test error. Synchronizing pays.";
    case LocalEffect::Kind::unknown:
      break;
  }
  return start + "and sync cannot be compared: one of them has no training that ended well.";
}

/// "at 2 samples per process", or only "at 2" where that has been said.
std::string place_text(const LocalEffect& effect, bool is_short) {
  return "at " + (is_short ? effect.short_place : effect.place);
}

/// Samples per process, then ranks.
std::pair<double, Index> size_of(const LocalEffect& effect) {
  const ArmFigures& local = *effect.local;
  return {static_cast<double>(local.batch) / static_cast<double>(local.ranks), local.ranks};
}

/// A part of the headline of a run with several cases.
std::string effect_clause(const LocalEffect& effect, const std::string& place) {
  switch (effect.kind) {
    case LocalEffect::Kind::worse:
      return "costs you " + points_text(effect.points()) + " " + place;
    case LocalEffect::Kind::better:
      return "does better by " + points_text(effect.points()) + " " + place;
    case LocalEffect::Kind::unclear:
      return "makes no difference that the seeds can show " + place;
    case LocalEffect::Kind::one_seed:
      return "ends " + points_text(effect.points()) + (effect.points() >= 0 ? " higher " : " lower ") + place;
    case LocalEffect::Kind::diverged:
      return "diverges " + place;
    case LocalEffect::Kind::unknown:
      break;
  }
  return "cannot be compared " + place;
}

/// sync / local, seed by seed: the same load on the machine, more or less.
Spread step_ratio(const LocalEffect& effect) {
  std::vector<double> ratios;
  for (const RecordedTraining* local : effect.local->trainings) {
    for (const RecordedTraining* sync : effect.sync->trainings) {
      if (local->id.seed != sync->id.seed) continue;
      const double denominator = step_seconds(*local);
      if (denominator > 0) ratios.push_back(step_seconds(*sync) / denominator);
    }
  }
  return spread_of(ratios);
}

std::string times_text(const LocalEffect& effect) {
  return " (" + duration(effect.sync->step_seconds.median) + " against " + duration(effect.local->step_seconds.median) +
         ")";
}

/// Whether some seeds have sync faster and others slower.
bool is_unclear(const Spread& ratio) { return ratio.count > 1 && ratio.smallest <= 1 && ratio.largest >= 1; }

std::string percents_text(double ratio) {
  const double percents = 100 * std::abs(ratio - 1);
  return fixed(percents, percents < 0.95 ? 1 : 0) + " %";
}

/// Of a run with one case.
std::string time_sentence(const LocalEffect& effect) {
  const Spread ratio = step_ratio(effect);
  if (ratio.count == 0) return "";
  if (is_unclear(ratio)) {
    return "A step takes as long with sync as with local, as far as these seeds can tell" + times_text(effect) + ".";
  }
  if (ratio.median >= 1.995) {
    return "A step takes " + fixed(ratio.median, 1) + " times as long with sync as with local" + times_text(effect) +
           ".";
  }
  return "A step takes " + percents_text(ratio.median) + (ratio.median >= 1 ? " longer" : " less") +
         " with sync than with local" + times_text(effect) + ".";
}

}  // namespace

std::vector<LocalEffect> effects_of(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  std::vector<LocalEffect> effects;
  for (const Index batch : run.batches) {
    for (const Index ranks : run.rank_counts) {
      if (ranks == 1 && run.rank_counts.size() > 1) continue;  // local is sync there
      const ArmFigures* local = find_figures(figures, "local", ranks, batch);
      const ArmFigures* sync = find_figures(figures, "sync", ranks, batch);
      if (local && sync) effects.push_back({kind_of(*local, *sync), local, sync, "", ""});
    }
  }
  name_places(effects);
  return effects;
}

/// From the fewest samples per process on: there local batch norm hurts most. Batches of one kind without a number share a
/// clause.
std::string headline_of(std::vector<LocalEffect> effects, const std::string& handing) {
  if (effects.size() == 1) return effect_sentence(effects.front(), handing);
  std::sort(effects.begin(), effects.end(),
            [](const LocalEffect& a, const LocalEffect& b) { return size_of(a) < size_of(b); });
  std::string text = handing.empty() ? "Local batch norm " : "With samples " + handing + ", local batch norm ";
  bool has_one_seed = false;
  for (std::size_t i = 0; i < effects.size();) {
    const LocalEffect& effect = effects[i];
    std::string place = place_text(effect, i > 0);
    const bool has_number = effect.kind == LocalEffect::Kind::worse || effect.kind == LocalEffect::Kind::better ||
                            effect.kind == LocalEffect::Kind::one_seed;
    std::size_t next = i + 1;
    for (; !has_number && next < effects.size() && effects[next].kind == effect.kind; ++next) {
      const bool is_last = next + 1 == effects.size() || effects[next + 1].kind != effect.kind;
      place += (is_last ? " and " : ", ") + effects[next].short_place;
    }
    text += (i == 0 ? "" : next < effects.size() ? ", " : " and ") + effect_clause(effect, place);
    has_one_seed = has_one_seed || effect.kind == LocalEffect::Kind::one_seed;
    i = next;
  }
  return text + " (test error, compared with sync)." +
         (has_one_seed ? " One seed cannot tell that from chance: try --seeds 3." : "");
}

std::string statistics_sentence(const LocalEffect& effect, const RunRecord& run) {
  const ArmFigures& local = *effect.local;
  const bool is_one_of_many = run.batches.size() > 1 || run.rank_counts.size() > 1;
  const std::string at = is_one_of_many ? "At " + effect.place + ", local's" : "Local's";
  if (local.precise_error.count > 0 && local.error.count > 0) {
    return at + " error is " + percent(local.precise_error.median) +
           " with exact statistics in place of running averages (sync's is " +
           percent(effect.sync->precise_error.median) + ").";
  }
  if (local.worst_rank_error.count == 0) return "";
  return at + " error is that of rank 0's running statistics; those of the ranks make it " +
         percent(local.best_rank_error.median) + " to " + percent(local.worst_rank_error.median) + ", their mean " +
         percent(local.mean_statistics_error.median) + ".";
}

std::string spread_sentence(const LocalEffect& effect) {
  const Spread& local = effect.local->error;
  const Spread& sync = effect.sync->error;
  if (local.count < 2 || sync.count < 2) return "";
  const bool overlap = effect.kind == LocalEffect::Kind::unclear;
  return "Local ended between " + percent(local.smallest) + " and " + percent(local.largest) + " over " +
         counted(local.count, "seed") + ", sync between " + percent(sync.smallest) + " and " + percent(sync.largest) +
         (overlap ? ": the ranges overlap." : ": the ranges do not overlap.");
}

/// Two arms of s seeds each that do not differ lie apart in 2 of (2s choose s) orders.
std::string chance_sentence(const std::vector<LocalEffect>& effects) {
  Index seeds = 0;
  for (const LocalEffect& effect : effects) {
    const bool lies_apart = effect.kind == LocalEffect::Kind::worse || effect.kind == LocalEffect::Kind::better;
    if (lies_apart && effect.local->error.count == effect.sync->error.count) seeds = effect.local->error.count;
  }
  if (seeds < 2 || seeds > 8) return "";
  double orders = 1;
  for (Index i = 1; i <= seeds; ++i) orders = orders * static_cast<double>(seeds + i) / static_cast<double>(i);
  return "If the two did not differ, the ranges of " + counted(seeds, "seed") +
         " each would lie apart by chance in 1 of " + fixed(orders / 2, 0) + " comparisons.";
}

std::string times_sentence(const std::vector<LocalEffect>& effects) {
  if (effects.size() == 1) return time_sentence(effects.front());
  std::string text;
  for (const LocalEffect& effect : effects) {
    const Spread ratio = step_ratio(effect);
    if (ratio.count == 0) continue;
    const std::string change = is_unclear(ratio)       ? "nothing that the seeds can show"
                               : ratio.median >= 1.995 ? "a factor of " + fixed(ratio.median, 1)
                               : ratio.median >= 1     ? percents_text(ratio.median)
                                                       : "less than nothing";
    text += (text.empty() ? "" : "; ") + change + " " + place_text(effect, !text.empty()) + times_text(effect);
  }
  return text.empty() ? "" : "Synchronizing adds to the time of a step: " + text + ".";
}

}  // namespace syncbn::train
