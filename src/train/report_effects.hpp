// SPDX-License-Identifier: MIT
// What local batch norm does in place of synchronized batch norm, case by case, in words.
#pragma once

#include <string>
#include <vector>

#include "report_summary.hpp"

namespace syncbn::train {

/// What local batch norm does to the test error at one batch and number of ranks.
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
  std::string place;        ///< "2 samples per process"; and on how many ranks, if there are two cases of so many.
  std::string short_place;  ///< "2", where it has been said of what.

  double points() const { return 100 * (local->error.median - sync->error.median); }
};

/// One for each batch and number of ranks, of 2 or more if there are several, at which both arms are there. Local and sync
/// belong to `figures`.
std::vector<LocalEffect> effects_of(const RunRecord& run, const std::vector<ArmFigures>& figures);

/// The headline of a run with one effect or more. `handing` says how samples were handed out; empty: nothing to say of it.
std::string headline_of(std::vector<LocalEffect> effects, const std::string& handing);

/// What of local's error is the fault of the statistics that evaluation uses, and what of training.
std::string statistics_sentence(const LocalEffect& effect, const RunRecord& run);

/// How the medians came about.
std::string spread_sentence(const LocalEffect& effect);

/// How easily chance gives such answers; empty if there are none that chance could give.
std::string chance_sentence(const std::vector<LocalEffect>& effects);

/// How much longer a step takes with sync than with local; empty if no seed has both.
std::string times_sentence(const std::vector<LocalEffect>& effects);

}  // namespace syncbn::train
