// SPDX-License-Identifier: MIT
// The verdict of a run in words: what local batch norm costs, what synchronizing costs, and how sure that is.
#include <algorithm>
#include <cmath>

#include "idle_ranks.hpp"
#include "report_effects.hpp"
#include "report_text.hpp"

namespace syncbn::train {

namespace {

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

std::string sync_sentence(const RunRecord& run) {
  if (run.checks.empty()) return "";
  const auto count = static_cast<Index>(run.checks.size());
  const auto same =
      std::count_if(run.checks.begin(), run.checks.end(), [](const RecordedCheck& check) { return check.same_bits; });
  std::vector<Index> ranks;
  for (const Index checked : run.rank_counts) {
    const bool is_checked = std::any_of(run.checks.begin(), run.checks.end(),
                                        [checked](const RecordedCheck& check) { return check.ranks == checked; });
    if (is_checked) ranks.push_back(checked);
  }
  const TrainingId& from = run.checks.front().from;
  const std::string like =
      from.label == "single" ? "like the full batch in one process" : "like sync on " + counted(from.ranks, "rank");
  const std::string start =
      "Sync on " + list_text(ranks) + (ranks.back() == 1 ? " rank" : " ranks") + " trained " + like;
  if (same == count) return start + ", to the last bit of every weight, with every seed.";
  return start + ": to the last bit in " + std::to_string(same) + " of " + std::to_string(count) +
         " comparisons, up to rounding in the others.";
}

/// No check can say anything of a training that has no end to compare with.
bool has_base_diverged(const RunRecord& run, const RecordedCheck& check) {
  return std::any_of(run.trainings.begin(), run.trainings.end(), [&](const RecordedTraining& training) {
    return training.id == check.from && training.has_diverged;
  });
}

bool has_fault(const RunRecord& run) {
  return std::any_of(run.checks.begin(), run.checks.end(),
                     [&](const RecordedCheck& check) { return !check.has_passed && !has_base_diverged(run, check); });
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
    if (run.rank_counts.size() > 1 && each.arm != "single") text += " on " + counted(each.ranks, "rank");
  }
  return text;
}

Index most_ranks(const RunRecord& run) { return *std::max_element(run.rank_counts.begin(), run.rank_counts.end()); }

bool has_arm(const RunRecord& run, const std::string& arm) {
  return std::find(run.arms.begin(), run.arms.end(), arm) != run.arms.end();
}

bool is_group(const std::string& arm) { return arm.rfind("group:", 0) == 0; }

/// What a comparison without local, or without what it is held against, leaves open.
std::string missing_arm_sentence(const RunRecord& run) {
  if (run.command != "compare") return "";
  const bool has_part = has_arm(run, "local") || std::any_of(run.arms.begin(), run.arms.end(), is_group);
  const bool has_whole = has_arm(run, "sync") || has_arm(run, "single");
  if (!has_part) return " What synchronizing gains cannot be seen without the arm local.";
  return has_whole ? "" : " What synchronizing would gain cannot be seen without the arm sync or single.";
}

/// Where no arm with statistics of its own is held against sync, or against single.
std::string plain_headline(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  if (run.epochs == 0) return "No epochs, no training: all arms are as they started.";
  const std::string errors = list_of_errors(figures, run);
  if (errors.empty()) return "No training has come to its end: there is nothing to compare yet.";
  if (run.arms.size() > 1 && most_ranks(run) == 1) {
    return "With one rank all arms are the same, " + errors + " test error: try mpirun -n 4.";
  }
  const std::string handing = handing_text(run.sharding);
  return capitalized(end_words(run.epochs).title) + (handing.empty() ? "" : ", with samples " + handing) + ": " +
         errors + "." + missing_arm_sentence(run);
}

/// Whether there is an arm in which all ranks train.
bool splits_batches(const RunRecord& run) {
  return std::any_of(run.arms.begin(), run.arms.end(), [](const std::string& arm) { return arm != "single"; });
}

std::string unfinished_text(const RunRecord& run) {
  if (run.is_finished) return "";
  const std::size_t wanted =
      arms_on_ranks(run).size() * run.batches.size() * std::max<std::size_t>(1, run.seeds.size());
  const auto ended = std::count_if(run.trainings.begin(), run.trainings.end(),
                                   [](const RecordedTraining& training) { return training.has_ended; });
  std::string text = "This run has not finished, or was cut off: " + std::to_string(ended) + " of " +
                     std::to_string(wanted) + " trainings are complete";
  for (const RecordedTraining& training : run.trainings) {
    if (training.has_ended) continue;
    const Index epoch = training.epochs.empty() ? 0 : training.epochs.back().epoch;
    text += "; " + training.id.label + " with seed " + std::to_string(training.id.seed) +
            (run.batches.size() > 1 ? " and batch " + std::to_string(training.id.batch) : "") +
            (run.rank_counts.size() > 1 && training.id.label != "single" ? " on " + counted(training.id.ranks, "rank")
                                                                         : "") +
            " came to epoch " + std::to_string(epoch) + " of " + std::to_string(run.epochs);
  }
  return text + ".";
}

/// Of each arm whose statistics are not those of the batch, local first, if there is anything to say of it: what it does.
std::vector<std::vector<ArmEffect>> comparable_effects(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  std::vector<std::vector<ArmEffect>> all;
  if (most_ranks(run) == 1) return all;
  std::vector<std::string> arms = run.arms;
  std::stable_partition(arms.begin(), arms.end(), [](const std::string& arm) { return arm == "local"; });
  for (const std::string& arm : arms) {
    if (arm != "local" && !is_group(arm)) continue;
    std::vector<ArmEffect> effects = effects_of(run, figures, arm);
    const bool has_any = std::any_of(effects.begin(), effects.end(),
                                     [](const ArmEffect& effect) { return effect.kind != ArmEffect::Kind::unknown; });
    if (has_any) all.push_back(std::move(effects));
  }
  return all;
}

}  // namespace

Verdict verdict_of(const RunRecord& run, const std::vector<ArmFigures>& figures) {
  Verdict verdict;
  verdict.unfinished = unfinished_text(run);
  if (has_fault(run)) {
    verdict.headline = run.checks.front().from.label == "single"
                           ? "Synchronized batch norm did not train like the full batch: this is a fault."
                           : "Synchronized batch norm did not train the same on all numbers of ranks: this is a fault.";
    return verdict;
  }
  const std::vector<std::vector<ArmEffect>> all = comparable_effects(run, figures);
  const std::string diverged = diverged_arms(run, figures);
  if (!diverged.empty() && all.empty()) {
    verdict.headline = "Training diverged in " + diverged + ": there is nothing to compare; try a smaller --lr.";
    return verdict;
  }
  const std::vector<ArmEffect> effects = all.empty() ? std::vector<ArmEffect>{} : all.front();
  verdict.headline = all.empty() ? plain_headline(run, figures) : effects_sentence(effects, handing_text(run.sharding));

  const auto add = [&verdict](const std::string& sentence) {
    if (!sentence.empty()) verdict.details.push_back(sentence);
  };
  if (effects.size() == 1) {
    const std::string end = conclusion(effects.front(), run.shares_cores);
    if (!end.empty()) verdict.headline += " " + end;
    add(spread_sentence(effects.front()));
  }
  add(chance_sentence(effects));
  for (std::size_t i = 1; i < all.size(); ++i) add(effects_sentence(all[i], ""));
  for (const ArmEffect& effect : effects) {
    const bool has_cost = effect.kind == ArmEffect::Kind::worse || effect.kind == ArmEffect::Kind::one_seed;
    if (has_cost && effect.arm->arm == "local") add(statistics_sentence(effect, run));
  }
  add(end_words(run.epochs).caution);
  const std::string times = times_sentence(effects, run.shares_cores);
  add(times);
  if (!times.empty() && run.shares_cores) {
    add("There were more ranks than cores (" + run.cores +
        "), so ranks waited for each other to be scheduled: these times do not say what synchronizing costs on cores "
        "of their own.");
  }
  if (!diverged.empty()) add("Training diverged in " + diverged + ".");
  for (const Index ranks : run.rank_counts) {
    if (splits_batches(run)) add(idle_sentence(run.batches, ranks));
  }
  if (run.epochs > 0) add(sync_sentence(run));
  return verdict;
}

}  // namespace syncbn::train
