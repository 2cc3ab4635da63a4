// SPDX-License-Identifier: MIT
// The verdict of a run in words: what local batch norm costs, what synchronizing costs, and how sure that is.
#include <algorithm>
#include <cmath>

#include "idle_ranks.hpp"
#include "report_summary.hpp"
#include "report_text.hpp"

namespace syncbn::train {

namespace {

/// What local batch norm does to the test error at one batch.
struct LocalEffect {
  enum class Kind {
    worse,     ///< Every seed of local is worse than every seed of sync.
    better,    ///< The other way round.
    unclear,   ///< The ranges over the seeds overlap.
    one_seed,  ///< No spread to hold it against.
    diverged,  ///< Local did, sync did not.
    unknown,   ///< One of the two has no training that ended well.
  };
  Kind kind = Kind::unknown;
  const ArmFigures* local = nullptr;
  const ArmFigures* sync = nullptr;

  double points() const { return 100 * (local->error.median - sync->error.median); }
};

LocalEffect::Kind kind_of(const ArmFigures& local, const ArmFigures& sync) {
  using Kind = LocalEffect::Kind;
  if (local.diverged > 0 && sync.diverged == 0 && sync.error.count > 0) return Kind::diverged;
  if (local.error.count == 0 || sync.error.count == 0) return Kind::unknown;
  if (local.error.count == 1 || sync.error.count == 1) return Kind::one_seed;
  if (local.error.smallest > sync.error.largest) return Kind::worse;
  if (local.error.largest < sync.error.smallest) return Kind::better;
  return Kind::unclear;
}

std::vector<LocalEffect> effects_of(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  std::vector<LocalEffect> effects;
  for (const Index batch : run.batches) {
    const ArmFigures* local = find_figures(figures, "local", batch);
    const ArmFigures* sync = find_figures(figures, "sync", batch);
    if (local && sync) effects.push_back({kind_of(*local, *sync), local, sync});
  }
  return effects;
}

std::string points_text(double points) {
  const std::string number = fixed(std::abs(points), std::abs(points) < 0.995 ? 2 : 1);
  return number + (number == "1.0" ? " point" : " points");
}

std::string samples_text(const LocalEffect& effect) {
  const ShareSizes& sizes = effect.local->share.rank;
  return sizes_text(sizes) + (sizes.largest == 1 ? " sample" : " samples") + " per process";
}

std::string errors_text(const LocalEffect& effect) {
  return percent(effect.local->error.median) + " test error against " + percent(effect.sync->error.median) +
         " with sync";
}

/// "handed out by class"; empty if ranks get what the shuffle gives them.
std::string handing_text(const Sharding& sharding) {
  switch (sharding.kind) {
    case Sharding::Kind::iid:
      return "";
    case Sharding::Kind::by_class:
      return "handed out by class";
    case Sharding::Kind::dirichlet:
      break;
  }
  return "handed out in uneven class mixes (" + sharding.name() + ")";
}

/// The whole headline of a run with one batch.
std::string effect_sentence(const LocalEffect& effect, const std::string& handing) {
  const std::string start =
      "With " + samples_text(effect) + (handing.empty() ? "" : ", " + handing) + ", local batch norm ";
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
  return "at " + (is_short ? sizes_text(effect.local->share.rank) : samples_text(effect));
}

/// A part of the headline of a run with several batches.
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

/// From the fewest samples per process on: there local batch norm hurts most. Batches of one kind without a number share a
/// clause.
std::string headline_of(std::vector<LocalEffect> effects, const std::string& handing) {
  if (effects.size() == 1) return effect_sentence(effects.front(), handing);
  std::sort(effects.begin(), effects.end(),
            [](const LocalEffect& a, const LocalEffect& b) { return a.local->batch < b.local->batch; });
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
      place += (is_last ? " and " : ", ") + sizes_text(effects[next].local->share.rank);
    }
    text += (i == 0 ? "" : next < effects.size() ? ", " : " and ") + effect_clause(effect, place);
    has_one_seed = has_one_seed || effect.kind == LocalEffect::Kind::one_seed;
    i = next;
  }
  return text + " (test error, compared with sync)." +
         (has_one_seed ? " One seed cannot tell that from chance: try --seeds 3." : "");
}

/// What of local's error is the fault of the statistics that evaluation uses, and what of training.
std::string statistics_sentence(const LocalEffect& effect, const RunRecord& run) {
  const ArmFigures& local = *effect.local;
  const std::string at = run.batches.size() > 1 ? "At " + samples_text(effect) + ", local's" : "Local's";
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

/// How the medians came about, and how easily chance gives such an answer.
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

/// Of a run with one batch.
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

/// Of a run with several.
std::string times_sentence(const std::vector<LocalEffect>& effects) {
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

std::string sync_sentence(const RunRecord& run) {
  if (run.checks.empty()) return "";
  const auto count = static_cast<Index>(run.checks.size());
  const auto same =
      std::count_if(run.checks.begin(), run.checks.end(), [](const RecordedCheck& check) { return check.same_bits; });
  const std::string start = "Sync on " + counted(run.ranks, "rank") + " trained like the full batch in one process";
  if (same == count) return start + ", to the last bit of every weight, with every seed.";
  return start + ": to the last bit in " + std::to_string(same) + " of " + std::to_string(count) +
         " comparisons, up to rounding in the others.";
}

/// No check can say anything of a training that has no end to compare with.
bool has_single_diverged(const RunRecord& run, const RecordedCheck& check) {
  return std::any_of(run.trainings.begin(), run.trainings.end(), [&](const RecordedTraining& training) {
    return training.id.label == "single" && training.id.batch == check.batch && training.id.seed == check.seed &&
           training.has_diverged;
  });
}

bool has_fault(const RunRecord& run) {
  return std::any_of(run.checks.begin(), run.checks.end(),
                     [&](const RecordedCheck& check) { return !check.has_passed && !has_single_diverged(run, check); });
}

/// "single, sync"
std::string diverged_arms(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  std::string names;
  for (const std::string& arm : run.arms) {
    const bool has_diverged = std::any_of(figures.begin(), figures.end(), [&](const ArmFigures& candidate) {
      return candidate.arm == arm && candidate.diverged > 0;
    });
    if (has_diverged) names += (names.empty() ? "" : ", ") + arm;
  }
  return names;
}

std::string list_of_errors(const std::vector<ArmFigures>& figures, const RunRecord& run) {
  std::string text;
  for (const ArmFigures& each : figures) {
    if (each.error.count == 0) continue;
    text += (text.empty() ? "" : ", ") + each.arm + " " + percent(each.error.median);
    if (run.batches.size() > 1) text += " with batch " + std::to_string(each.batch);
  }
  return text;
}

/// Where nothing tells local from sync.
std::string plain_headline(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  if (run.epochs == 0) return "No epochs, no training: all arms are as they started.";
  const std::string errors = list_of_errors(figures, run);
  if (errors.empty()) return "No training has come to its end: there is nothing to compare yet.";
  if (run.arms.size() > 1 && run.ranks == 1) {
    return "With one rank all arms are the same, " + errors + " test error: try mpirun -n 4.";
  }
  const std::string handing = handing_text(run.sharding);
  return "Test error at the end" + (handing.empty() ? "" : ", with samples " + handing) + ": " + errors + ".";
}

/// Whether there is an arm in which all ranks train.
bool splits_batches(const RunRecord& run) {
  return std::any_of(run.arms.begin(), run.arms.end(), [](const std::string& arm) { return arm != "single"; });
}

std::string unfinished_text(const RunRecord& run) {
  if (run.is_finished) return "";
  const std::size_t wanted = run.arms.size() * run.batches.size() * std::max<std::size_t>(1, run.seeds.size());
  const auto ended = std::count_if(run.trainings.begin(), run.trainings.end(),
                                   [](const RecordedTraining& training) { return training.has_ended; });
  std::string text = "This run has not finished, or was cut off: " + std::to_string(ended) + " of " +
                     std::to_string(wanted) + " trainings are complete";
  for (const RecordedTraining& training : run.trainings) {
    if (training.has_ended) continue;
    const Index epoch = training.epochs.empty() ? 0 : training.epochs.back().epoch;
    text += "; " + training.id.label + " with seed " + std::to_string(training.id.seed) +
            (run.batches.size() > 1 ? " and batch " + std::to_string(training.id.batch) : "") + " came to epoch " +
            std::to_string(epoch) + " of " + std::to_string(run.epochs);
  }
  return text + ".";
}

}  // namespace

Verdict verdict_of(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  Verdict verdict;
  verdict.unfinished = unfinished_text(run);
  if (has_fault(run)) {
    verdict.headline = "Synchronized batch norm did not train like the full batch: this is a fault.";
    return verdict;
  }
  std::vector<LocalEffect> effects = effects_of(run, figures);
  const bool can_compare = run.ranks > 1 && std::any_of(effects.begin(), effects.end(), [](const LocalEffect& effect) {
                             return effect.kind != LocalEffect::Kind::unknown;
                           });
  const std::string diverged = diverged_arms(run, figures);
  if (!diverged.empty() && !can_compare) {
    verdict.headline = "Training diverged in " + diverged + ": there is nothing to compare; try a smaller --lr.";
    return verdict;
  }
  verdict.headline = can_compare ? headline_of(effects, handing_text(run.sharding)) : plain_headline(run, figures);
  if (!can_compare) effects.clear();

  const auto add = [&verdict](const std::string& sentence) {
    if (!sentence.empty()) verdict.details.push_back(sentence);
  };
  if (effects.size() == 1) add(spread_sentence(effects.front()));
  add(chance_sentence(effects));
  for (const LocalEffect& effect : effects) {
    const bool has_cost = effect.kind == LocalEffect::Kind::worse || effect.kind == LocalEffect::Kind::one_seed;
    if (has_cost) add(statistics_sentence(effect, run));
  }
  add(effects.size() == 1 ? time_sentence(effects.front()) : times_sentence(effects));
  if (!effects.empty() && run.shares_cores) {
    add("There were more ranks than cores (" + run.cores +
        "), so ranks waited for each other to be scheduled: these times do not say what synchronizing costs on cores "
        "of "
        "their own.");
  }
  if (!diverged.empty()) add("Training diverged in " + diverged + ".");
  if (splits_batches(run)) add(idle_sentence(run.batches, run.ranks));
  if (run.epochs > 0) add(sync_sentence(run));
  return verdict;
}

}  // namespace syncbn::train
