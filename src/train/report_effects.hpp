// SPDX-License-Identifier: MIT
// What an arm that does not share all statistics does in place of synchronized batch norm, case by case, in words.
#pragma once

#include <string>
#include <vector>

#include "report_summary.hpp"

namespace syncbn::train {

/// What an arm does to the test error at one batch and number of ranks.
struct ArmEffect {
  enum class Kind {
    worse,     ///< Every seed of the arm is worse than every seed of the base.
    better,    ///< The other way round.
    unclear,   ///< The ranges over the seeds overlap.
    one_seed,  ///< No spread to hold it against.
    diverged,  ///< The arm did, the base did not.
    unknown,   ///< One of the two has no training that ended well.
  };
  Kind kind = Kind::unknown;
  const ArmFigures* arm = nullptr;   ///< `local` or `group:k`.
  const ArmFigures* base = nullptr;  ///< `sync`; in a run without it `single`, which trains the same.
  std::string place;        ///< "2 samples per process"; and on how many ranks, if there are two cases of so many.
  std::string short_place;  ///< "2", where it has been said of what.

  double points() const { return 100 * (arm->error.median - base->error.median); }
  bool is_timed() const { return base->arm == "sync"; }  ///< `single` has a machine of its own.
};

/// How much longer a step takes with sync, of the seeds that both arms have.
struct StepChange {
  double arm_seconds = kUnknown;  ///< Medians, as they are printed.
  double sync_seconds = kUnknown;
  Spread noise;  ///< sync / arm - 1 of the seeds; if there is one, of its epochs.

  bool is_known() const { return arm_seconds > 0 && sync_seconds > 0; }
  double ratio() const { return sync_seconds / arm_seconds; }
  /// Some seeds (epochs) have sync faster, others slower.
  bool is_noise() const { return noise.count > 1 && noise.smallest <= 0 && noise.largest >= 0; }
  /// It may be nothing, and may be more than 15 %.
  bool is_unclear() const { return is_noise() && noise.largest > 0.15; }
};

StepChange step_change(const ArmEffect& effect);

/// One for each batch and number of ranks, of 2 or more if there are several, at which both arms are there: from the fewest
/// samples per process on, where local batch norm hurts most. Arm and base belong to `figures`.
std::vector<ArmEffect> effects_of(const RunRecord& run, const std::vector<ArmFigures>& figures, const std::string& arm);

/// What an arm does, with one effect or more. `handing` says how samples were handed out; empty: nothing to say of it.
std::string effects_sentence(const std::vector<ArmEffect>& effects, const std::string& handing);

/// What follows from one case, with what it costs in time; empty if nothing does. `shares_cores`: times say nothing.
std::string conclusion(const ArmEffect& effect, bool shares_cores);

/// What of local's error is the fault of the statistics that evaluation uses, and what of training.
std::string statistics_sentence(const ArmEffect& effect, const RunRecord& run);

/// How the medians came about.
std::string spread_sentence(const ArmEffect& effect);

/// How easily chance gives such answers; empty if there are none that chance could give.
std::string chance_sentence(const std::vector<ArmEffect>& effects);

/// How much longer a step takes with sync than with the arm; empty if no seed has both.
std::string times_sentence(const std::vector<ArmEffect>& effects, bool shares_cores);

}  // namespace syncbn::train
