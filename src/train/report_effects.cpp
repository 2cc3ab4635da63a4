// SPDX-License-Identifier: MIT
#include "report_effects.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "report_text.hpp"

namespace syncbn::train {

namespace {

ArmEffect::Kind kind_of(const ArmFigures& arm, const ArmFigures& base) {
  using Kind = ArmEffect::Kind;
  if (arm.diverged > 0 && base.diverged == 0 && base.error.count > 0) return Kind::diverged;
  if (arm.error.count == 0 || base.error.count == 0) return Kind::unknown;
  if (arm.error.count == 1 || base.error.count == 1) return Kind::one_seed;
  if (arm.error.smallest > base.error.largest) return Kind::worse;
  if (arm.error.largest < base.error.smallest) return Kind::better;
  return Kind::unclear;
}

/// "local batch norm", "batch norm over groups of 2 processes"
std::string name_of(const ArmEffect& effect) {
  const std::string& arm = effect.arm->arm;
  if (arm == "local") return "local batch norm";
  return "batch norm over groups of " + arm.substr(arm.find(':') + 1) + " processes";
}

std::string with_base(const ArmEffect& effect) {
  return effect.is_timed() ? "with sync" : "with the full batch in one process";
}

std::string points_text(double points) {
  const std::string number = fixed(std::abs(points), std::abs(points) < 0.995 ? 2 : 1);
  return number + (number == "1.0" ? " point" : " points");
}

/// Cases with the same numbers of samples are told apart by their ranks.
void name_places(std::vector<ArmEffect>& effects) {
  for (ArmEffect& effect : effects) {
    const ShareSizes& sizes = effect.arm->share.rank;
    const auto namesakes = std::count_if(effects.begin(), effects.end(), [&](const ArmEffect& other) {
      return sizes_text(other.arm->share.rank) == sizes_text(sizes);
    });
    const std::string where = namesakes > 1 ? " on " + counted(effect.arm->ranks, "rank") : "";
    effect.short_place = sizes_text(sizes) + where;
    effect.place = samples_text(sizes) + " per process" + where;
  }
}

std::string errors_text(const ArmEffect& effect) {
  return percent(effect.arm->error.median) + " test error against " + percent(effect.base->error.median) + " " +
         with_base(effect);
}

/// "medians of 3 seeds, whose ranges lie apart"
std::string evidence_text(const ArmEffect& effect) {
  const Index seeds = std::min(effect.arm->error.count, effect.base->error.count);
  return std::string(seeds == 2 ? "means" : "medians") + " of " + counted(seeds, "seed") + ", whose ranges lie apart";
}

/// Of a run that was cut off others may be on their way.
std::string one_seed_sentence(const ArmEffect& effect) {
  return effect.arm->begun > 1 || effect.base->begun > 1 ? "One complete seed cannot tell that from chance."
                                                         : "One seed cannot tell that from chance: try --seeds 3.";
}

/// All that is said of the only case of a run.
std::string effect_sentence(const ArmEffect& effect, const std::string& handing) {
  const std::string start =
      "With " + effect.place + (handing.empty() ? "" : ", " + handing) + ", " + name_of(effect) + " ";
  switch (effect.kind) {
    case ArmEffect::Kind::worse:
      return start + "costs you " + points_text(effect.points()) + " here: " + errors_text(effect) + " (" +
             evidence_text(effect) + ").";
    case ArmEffect::Kind::better:
      return start + "does better by " + points_text(effect.points()) + " here: " + errors_text(effect) + " (" +
             evidence_text(effect) + ").";
    case ArmEffect::Kind::unclear:
      return start + "makes no difference here that " + counted(effect.arm->error.count, "seed") +
             " can show: " + errors_text(effect) + ", within the spread of the seeds.";
    case ArmEffect::Kind::one_seed:
      return start + "ended " + points_text(effect.points()) + " of test error " +
             (effect.points() >= 0 ? "higher" : "lower") + " than " + effect.base->arm + ": " + errors_text(effect) +
             ". " + one_seed_sentence(effect);
    case ArmEffect::Kind::diverged:
      return start + "diverged with " + std::to_string(effect.arm->diverged) + " of " +
             counted(effect.arm->ended, "seed") + "; " + effect.base->arm + " did not, and ended at " +
             percent(effect.base->error.median) + " test error.";
    case ArmEffect::Kind::unknown:
      break;
  }
  return start + "and " + effect.base->arm + " cannot be compared: one of them has no training that ended well.";
}

/// ", for 25 % more time a step"
std::string price_text(const ArmEffect& effect, bool shares_cores) {
  const StepChange change = effect.is_timed() ? step_change(effect) : StepChange{};
  if (!change.is_known() || shares_cores || change.is_unclear()) return "; what it costs in time this run cannot tell";
  if (change.is_noise() || change.ratio() <= 1) return ", at no measurable cost in time";
  const double more = 100 * (change.ratio() - 1);
  if (more < 0.5) return ", for less than 1 % more time a step";
  return change.ratio() < 1.995 ? ", for " + fixed(more, 0) + " % more time a step"
                                : ", for " + fixed(change.ratio(), 1) + " times the time a step";
}

/// "at 2 samples per process", or only "at 2" where that has been said.
std::string place_text(const ArmEffect& effect, bool is_short) {
  return "at " + (is_short ? effect.short_place : effect.place);
}

/// Samples per process, then ranks.
std::pair<double, Index> size_of(const ArmEffect& effect) {
  return {static_cast<double>(effect.arm->batch) / static_cast<double>(effect.arm->ranks), effect.arm->ranks};
}

/// A part of the headline of a run with several cases.
std::string effect_clause(const ArmEffect& effect, const std::string& place) {
  switch (effect.kind) {
    case ArmEffect::Kind::worse:
      return "costs you " + points_text(effect.points()) + " " + place;
    case ArmEffect::Kind::better:
      return "does better by " + points_text(effect.points()) + " " + place;
    case ArmEffect::Kind::unclear:
      return "makes no difference that the seeds can show " + place;
    case ArmEffect::Kind::one_seed:
      return "ends " + points_text(effect.points()) + (effect.points() >= 0 ? " higher " : " lower ") + place;
    case ArmEffect::Kind::diverged:
      return "diverges " + place;
    case ArmEffect::Kind::unknown:
      break;
  }
  return "cannot be compared " + place;
}

}  // namespace

std::vector<ArmEffect> effects_of(const RunRecord& run, const std::vector<ArmFigures>& figures,
                                  const std::string& arm) {
  const bool has_sync = std::find(run.arms.begin(), run.arms.end(), "sync") != run.arms.end();
  std::vector<ArmEffect> effects;
  for (const Index batch : run.batches) {
    for (const Index ranks : run.rank_counts) {
      if (ranks == 1 && run.rank_counts.size() > 1) continue;  // all arms are the same there
      const Index single_ranks = run.rank_counts.size() > 1 ? 1 : ranks;
      const ArmFigures* other = find_figures(figures, arm, ranks, batch);
      const ArmFigures* base =
          has_sync ? find_figures(figures, "sync", ranks, batch) : find_figures(figures, "single", single_ranks, batch);
      if (other && base) effects.push_back({kind_of(*other, *base), other, base, "", ""});
    }
  }
  name_places(effects);
  std::sort(effects.begin(), effects.end(),
            [](const ArmEffect& a, const ArmEffect& b) { return size_of(a) < size_of(b); });
  return effects;
}

/// Batches of one kind without a number share a clause.
std::string effects_sentence(const std::vector<ArmEffect>& effects, const std::string& handing) {
  if (effects.size() == 1) return effect_sentence(effects.front(), handing);
  const std::string name = name_of(effects.front());
  std::string text = handing.empty() ? capitalized(name) + " " : "With samples " + handing + ", " + name + " ";
  std::string one_seed;  // what follows from that, if there is such an effect
  for (std::size_t i = 0; i < effects.size();) {
    const ArmEffect& effect = effects[i];
    std::string place = place_text(effect, i > 0);
    const bool has_number = effect.kind == ArmEffect::Kind::worse || effect.kind == ArmEffect::Kind::better ||
                            effect.kind == ArmEffect::Kind::one_seed;
    std::size_t next = i + 1;
    for (; !has_number && next < effects.size() && effects[next].kind == effect.kind; ++next) {
      const bool is_last = next + 1 == effects.size() || effects[next + 1].kind != effect.kind;
      place += (is_last ? " and " : ", ") + effects[next].short_place;
    }
    text += (i == 0 ? "" : next < effects.size() ? ", " : " and ") + effect_clause(effect, place);
    if (effect.kind == ArmEffect::Kind::one_seed) one_seed = one_seed_sentence(effect);
    i = next;
  }
  return text + " (test error, compared with " + effects.front().base->arm + ")." +
         (one_seed.empty() ? "" : " " + one_seed);
}

std::string conclusion(const ArmEffect& effect, bool shares_cores) {
  const Index seeds = std::min(effect.arm->error.count, effect.base->error.count);
  const bool lies_apart = effect.kind == ArmEffect::Kind::worse || effect.kind == ArmEffect::Kind::better;
  if (lies_apart && seeds == 2) return "Two seeds are a hint, not more: try --seeds 5.";
  switch (effect.kind) {
    case ArmEffect::Kind::worse:
      return "Synchronizing lowers the error here" + price_text(effect, shares_cores) + ".";
    case ArmEffect::Kind::diverged:
      return "Synchronizing keeps the training together here" + price_text(effect, shares_cores) + ".";
    case ArmEffect::Kind::better:
      return "No need to synchronize here.";
    case ArmEffect::Kind::unclear:
    case ArmEffect::Kind::one_seed:
    case ArmEffect::Kind::unknown:
      break;
  }
  return "";
}

std::string statistics_sentence(const ArmEffect& effect, const RunRecord& run) {
  const ArmFigures& local = *effect.arm;
  const bool is_one_of_many = run.batches.size() > 1 || run.rank_counts.size() > 1;
  const std::string at = is_one_of_many ? "At " + effect.place + ", local's" : "Local's";
  if (local.precise_error.count > 0 && local.error.count > 0) {
    return at + " error is " + percent(local.precise_error.median) +
           " with exact statistics in place of running averages (" + effect.base->arm + "'s is " +
           percent(effect.base->precise_error.median) + ").";
  }
  if (local.worst_rank_error.count == 0) return "";
  return at + " error is that of rank 0's running statistics; those of the ranks make it " +
         percent(local.best_rank_error.median) + " to " + percent(local.worst_rank_error.median) + ", their mean " +
         percent(local.mean_statistics_error.median) + ".";
}

std::string spread_sentence(const ArmEffect& effect) {
  const Spread& arm = effect.arm->error;
  const Spread& base = effect.base->error;
  if (arm.count < 2 || base.count < 2) return "";
  const bool overlap = effect.kind == ArmEffect::Kind::unclear;
  return capitalized(effect.arm->arm) + " ended between " + percent(arm.smallest) + " and " + percent(arm.largest) +
         " over " + counted(arm.count, "seed") + ", " + effect.base->arm + " between " + percent(base.smallest) +
         " and " + percent(base.largest) + (overlap ? ": the ranges overlap." : ": the ranges do not overlap.");
}

/// Two arms of s seeds each that do not differ lie apart in 2 of (2s choose s) orders.
std::string chance_sentence(const std::vector<ArmEffect>& effects) {
  Index seeds = 0;
  for (const ArmEffect& effect : effects) {
    const bool lies_apart = effect.kind == ArmEffect::Kind::worse || effect.kind == ArmEffect::Kind::better;
    if (lies_apart && effect.arm->error.count == effect.base->error.count) seeds = effect.arm->error.count;
  }
  if (seeds < 2 || seeds > 8) return "";
  double orders = 1;
  for (Index i = 1; i <= seeds; ++i) orders = orders * static_cast<double>(seeds + i) / static_cast<double>(i);
  return "If the two did not differ, the ranges of " + counted(seeds, "seed") +
         " each would lie apart by chance in 1 of " + fixed(orders / 2, 0) + " comparisons" +
         (seeds == 2 && effects.size() > 1 ? ": a hint, not more; try --seeds 5." : ".");
}

}  // namespace syncbn::train
